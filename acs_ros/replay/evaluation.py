"""Converts the answers of a run into an evaluation of the labelled questions, for reports and comparisons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from acs_core.evaluation.records import Evaluation, Group, Prediction, Question, Run
from acs_core.geometry import Box
from acs_core.types import GroundingResult
from acs_ros.bags.frames import FrameAt, show_stamp
from acs_ros.node.parameters import Settings
from acs_ros.replay.journal import Kept
from acs_ros.replay.replies import Fate, Replies
from acs_ros.replay.schedule import GroundTruth

ONE, ALL = "one object", "every object"
GREEDY = "greedy"
COUNTED = (Fate.ANSWERED, Fate.FAILED, Fate.UNREADABLE, Fate.UNANSWERED)  # a dropped frame is no wrong answer


@dataclass(frozen=True)
class Item:
    """One phrase asked about one frame. ``truth`` is None where it is unknown; ``key`` is the same in all runs over a
    bag."""

    key: str
    frame: FrameAt
    phrase: str
    fate: Fate
    kept: Kept
    truth: tuple[Box, ...] | None


@dataclass(frozen=True)
class Method:
    """Name, selector and sampling of a run; ``temperature`` is None for greedy decoding or where it is unknown."""

    name: str
    selector: str
    temperature: float | None
    samples: int


def items_of(replies: Replies, truth: GroundTruth) -> tuple[Item, ...]:
    """All questions in order, without those about frames that were dropped, not asked or not reached."""
    seen: Counter[str] = Counter()
    items = []
    for told in replies.frames:
        if told.fate not in COUNTED:
            continue
        kept = told.kept or (Kept(None, None, f"no answer ({told.fate})"),) * len(told.phrases)
        for phrase, one in zip(told.phrases, kept, strict=True):
            key = f"{show_stamp(told.frame.key[0])}:{phrase}"
            seen[key] += 1
            if seen[key] > 1:  # a stamp that came twice
                key += f" ({seen[key]})"
            items.append(Item(key, told.frame, phrase, told.fate, one, truth.boxes(told.frame, phrase)))
    return tuple(items)


def method_of(items: tuple[Item, ...], settings: Settings | None, name: str | None) -> Method:
    """The method of a run, from its ``settings`` where they are known and from its answers. ``name`` replaces the
    selector's name."""
    results = [i.kept.result for i in items if i.kept.result is not None]
    last = results[-1] if results else None
    selector = last.selector if last else settings.selector if settings else "unknown"
    samples = settings.samples if settings else max((len(r.responses) for r in results), default=0)
    temperature = settings.temperature if settings else None
    if selector == GREEDY:
        samples, temperature = 1, None
    return Method(name or selector, selector, temperature, samples)


def make_evaluation(
    title: str, items: tuple[Item, ...], method: Method, picture_of: Callable[[FrameAt], str], facts: Mapping[str, str]
) -> Evaluation:
    """The labelled questions as groups: those about one object at most, where Acc@0.5 and mIoU count; and, where some
    labels name several objects, all of them, where precision and recall do. No groups without labels.

    ``picture_of`` says where a frame's picture lies.
    """
    known = [item for item in items if item.truth is not None]
    several = any(item.truth and len(item.truth) > 1 for item in known)
    # Imports torch, for which no --help should wait.
    from acs_core.selection.registry import is_baseline, is_learned, selector_names

    # The selector of a node may be unknown: a method that is not known to be of this package is none of its own.
    ours = method.selector in selector_names() and not is_baseline(method.selector)

    groups = []
    for name, objects in ((ONE, "single"), (ALL, "several")):
        chosen = [i for i in known if objects == "several" or len(i.truth or ()) <= 1]
        if chosen and (objects == "single" or several):
            questions = tuple(_question(i, picture_of(i.frame)) for i in chosen)
            run = Run(
                method.name,
                method.temperature,
                method.samples,
                tuple(answer_of(i.kept) for i in chosen),
                "ours" if ours else "baseline",
                is_learned(method.selector),
            )
            groups.append(Group(name, objects, questions, (run,)))
    return Evaluation(title, tuple(groups), dict(facts))


def answer_of(kept: Kept) -> Prediction:
    """Convert an answer to a prediction; scores that are not calibrated are left out."""
    result = kept.result
    if result is None:
        return Prediction(latency_ms=kept.latency_ms, reason=kept.problem)
    found = sorted(result.detections, key=lambda d: -d.score)
    calibrated = result.score_kind.is_probability
    return Prediction(
        tuple(d.box for d in found),
        tuple(min(1.0, max(0.0, d.score)) for d in found) if calibrated else (),
        found[0].expected_iou if found else None,
        kept.latency_ms,
        "" if found else result.reason,
    )


def _question(item: Item, image: str) -> Question:
    result: GroundingResult | None = item.kept.result
    return Question(
        item.key, item.phrase, item.phrase, image, result.image_size if result else (0, 0), item.truth or ()
    )

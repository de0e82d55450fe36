"""The answers of a run as an evaluation: the labelled questions with what was answered, to be compared and shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from acs_core.geometry import Box
from acs_core.types import GroundingResult, ScoreKind
from acs_eval.records import Answer, Evaluation, Group, Question, Run
from acs_ros.parameters import Settings
from acs_ros.replay.asked import Truth
from acs_ros.replay.contents import FrameAt
from acs_ros.replay.journal import Kept
from acs_ros.replay.replies import Fate, Replies

ONE, ALL = "one object", "every object"
GREEDY = "greedy"
COUNTED = (Fate.ANSWERED, Fate.FAILED, Fate.UNREADABLE, Fate.UNANSWERED)  # a dropped frame is no wrong answer


@dataclass(frozen=True)
class Item:
    """One question of the run. ``truth`` None: not known. ``key`` names it in every run over the same bag."""

    key: str
    frame: FrameAt
    phrase: str
    fate: Fate
    kept: Kept
    truth: tuple[Box, ...] | None


@dataclass(frozen=True)
class Method:
    """What a run is called, its selector, and how it sampled; ``temperature`` None: greedily, or it is not known."""

    name: str
    selector: str
    temperature: float | None
    samples: int


def items_of(replies: Replies, truth: Truth) -> tuple[Item, ...]:
    """Every question that was due, in order; frames that were dropped or not reached are none."""
    seen: Counter[str] = Counter()
    items = []
    for told in replies.frames:
        if told.fate not in COUNTED:
            continue
        kept = told.kept or (Kept(None, None, f"no answer ({told.fate})"),) * len(told.phrases)
        for phrase, one in zip(told.phrases, kept, strict=True):
            key = f"{told.frame.stamp}:{phrase}"
            seen[key] += 1
            if seen[key] > 1:  # a stamp that came twice
                key += f" ({seen[key]})"
            items.append(Item(key, told.frame, phrase, told.fate, one, truth.boxes(told.frame, phrase)))
    return tuple(items)


def method_of(items: tuple[Item, ...], settings: Settings | None, name: str | None) -> Method:
    """What answered: from the ``settings`` of the run, where they are known, and from the answers. ``name`` is what the
    user calls it."""
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
                "ours" if method.selector.startswith("acs") else "baseline",
                method.selector == "acs-learned",
            )
            groups.append(Group(name, objects, questions, (run,)))
    return Evaluation(title, tuple(groups), dict(facts))


def answer_of(kept: Kept) -> Answer:
    """What a question got. Scores that are no probabilities are left out."""
    result = kept.result
    if result is None:
        return Answer(latency_ms=kept.latency_ms, reason=kept.problem)
    found = sorted(result.detections, key=lambda d: -d.score)
    calibrated = result.score_kind is ScoreKind.CALIBRATED
    return Answer(
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

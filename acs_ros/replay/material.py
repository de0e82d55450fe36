"""Inputs of a run, read from a bag and label files: topics, frames, query schedule and ground truth."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace

from acs_ros.bags.frames import FrameAt, due_times
from acs_ros.bags.reader import Bag
from acs_ros.errors import BagError
from acs_ros.replay.coco_truth import match_coco, read_coco
from acs_ros.replay.contents import Contents, Topics, choose_topics, read_contents
from acs_ros.replay.replies import Replies
from acs_ros.replay.schedule import GroundTruth, QuerySchedule, make_schedule, unmatched


@dataclass(frozen=True)
class BagData:
    """``truth_source`` says where the labels come from; ``sizes`` are the (width, height) that frames had when they
    were labelled, by stamp and frame_id, where that is known; ``due`` says when each frame is due at the bag's own
    pace, in nanoseconds after the first one; ``notes`` are sentences for the user."""

    bag: Bag
    topics: Topics
    contents: Contents
    truth: GroundTruth
    truth_source: str
    plan: QuerySchedule
    sizes: dict[tuple[int, str], tuple[int, int]]
    due: tuple[int, ...]
    notes: tuple[str, ...]

    @property
    def frames(self) -> tuple[FrameAt, ...]:
        """The frames in use."""
        return self.contents.frames


def look_at(bag: Bag, options: argparse.Namespace, progress: Callable[[], None] = lambda: None) -> Contents:
    """Read the contents of a bag that ``options`` select.

    Raises:
        BagError: a topic is missing or ambiguous, or there are no frames.
    """
    topics = topics_of(bag, options)
    contents = read_contents(bag, topics, progress)
    if not contents.frames:
        bad = contents.unreadable.get(topics.image, 0)
        why = f"all {bad} messages on {topics.image} are damaged" if bad else f"there is no message on {topics.image}"
        raise BagError("; ".join([f"{bag.path}: {why}", *bag.notes]))
    return replace(contents, frames=contents.frames[: options.frames])


def topics_of(bag: Bag, options: argparse.Namespace) -> Topics:
    """Choose the topics by ``options``.

    Raises:
        BagError: see :func:`choose_topics`.
    """
    truth = "" if options.coco else options.truth
    return choose_topics(
        bag.topics, options.image_topic, truth, "" if options.query is not None else options.query_topic
    )


def load_bag_data(bag: Bag, options: argparse.Namespace, progress: Callable[[], None] = lambda: None) -> BagData:
    """Read all inputs of a run.

    Raises:
        BagError: something is missing, or nothing fits together, such as ground truth that is no frame's; says what.
        PhraseError: the phrase cannot be asked.
    """
    topics, contents = topics_of(bag, options), look_at(bag, options, progress)
    notes, sizes, labels = list(contents.notes), {}, contents.truth
    source = f"{topics.truth} of the bag" if topics.truth else "none"
    if options.coco:
        match = match_coco(read_coco(options.coco), contents.frames, options.coco_match)
        labels, sizes, source = match.truth, match.sizes, f"{options.coco} by {options.coco_match}"
        notes.append(match.note)
    if topics.truth and not labels:
        if contents.truth_messages:
            bad = contents.unreadable.get(topics.truth, 0)
            why = [f"{bad} of them cannot be decoded" if bad else "", *contents.notes]
            raise BagError(
                f"no frame has ground truth, although {contents.truth_messages} messages on {topics.truth} should hold "
                f"it: {'; '.join(w for w in why if w)}. --truth '' runs without it"
            )
        notes.append(f"there is no message on {topics.truth}, and so no ground truth")
    notes.append(unmatched(labels, contents.frames, options.frames if not options.coco else None))
    notes += [
        f"{count} messages on {topic} cannot be decoded and are skipped: damaged, or of another version of their type"
        for topic, count in contents.unreadable.items()
    ]
    if options.live and any(frame.own_stamp_ns is not None for frame in contents.frames):
        notes.append("frames that repeat a stamp are sent with one of their own, so that their answers are told apart")
    truth = GroundTruth(labels)
    plan = make_schedule(contents, truth, options.query, topics.query)
    notes += plan.notes
    return BagData(
        bag, topics, contents, truth, source, plan, sizes, due_times(contents.frames), tuple(n for n in notes if n)
    )


def without_misfits(material: BagData, replies: Replies) -> BagData:
    """Drop labels that were made on pictures of another size than the frames have."""
    shown = {f.frame.key: k.result.image_size for f in replies.frames for k in f.kept if k.result is not None}
    wrong = {key for key, size in material.sizes.items() if key in shown and shown[key] != size}
    if not wrong:
        return material
    one = min(wrong)
    note = (
        f"{len(wrong)} frames were labelled at another size (the first at {material.sizes[one][0]} x "
        f"{material.sizes[one][1]}, the frame has {shown[one][0]} x {shown[one][1]}): their labels are left out"
    )
    return replace(material, truth=material.truth.without(wrong), notes=(*material.notes, note))

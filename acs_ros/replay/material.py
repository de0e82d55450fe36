"""Everything about a bag that a run needs before anything is asked: topics, frames, what is asked, what is true."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace

from acs_ros.bags import BagError
from acs_ros.replay.asked import Plan, Truth, make_plan, unmatched
from acs_ros.replay.coco_truth import match_coco, read_coco
from acs_ros.replay.contents import Contents, FrameAt, read_contents
from acs_ros.replay.replies import Replies
from acs_ros.replay.storage import Bag
from acs_ros.replay.topics import Topics, choose_topics


@dataclass(frozen=True)
class Material:
    """``truth_source`` says where the labels come from; ``sizes`` are the (width, height) that frames had when they
    were labelled, by stamp and frame_id, where that is known; ``notes`` are sentences for the user."""

    bag: Bag
    topics: Topics
    contents: Contents
    truth: Truth
    truth_source: str
    plan: Plan
    sizes: dict[tuple[int, str], tuple[int, int]]
    notes: tuple[str, ...]

    @property
    def frames(self) -> tuple[FrameAt, ...]:
        """The frames in use."""
        return self.contents.frames


def look_at(bag: Bag, options: argparse.Namespace, progress: Callable[[], None] = lambda: None) -> Contents:
    """The contents of a bag as far as ``options`` ask for them.

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
    """The topics that ``options`` mean.

    Raises:
        BagError: see :func:`choose_topics`.
    """
    truth = "" if options.coco else options.truth
    return choose_topics(
        bag.topics, options.image_topic, truth, "" if options.query is not None else options.query_topic
    )


def gather(bag: Bag, options: argparse.Namespace, progress: Callable[[], None] = lambda: None) -> Material:
    """Read all of it.

    Raises:
        BagError: something is missing, or nothing fits together; says what.
        PhraseError: the phrase cannot be asked.
    """
    topics, contents = topics_of(bag, options), look_at(bag, options, progress)
    notes, sizes, labels = [], {}, contents.truth
    source = f"{topics.truth} of the bag" if topics.truth else "none"
    if options.coco:
        match = match_coco(read_coco(options.coco), contents.frames, options.coco_match)
        labels, sizes, source = match.truth, match.sizes, f"{options.coco} by {options.coco_match}"
        notes.append(match.note)
    if topics.truth and not labels:
        notes.append(f"there is no ground truth in the messages on {topics.truth}")
    # Where only the first frames are used, labels of the others are no mistake.
    notes.append("" if options.frames and not options.coco else unmatched(labels, contents.frames))
    notes += [
        f"{count} messages on {topic} cannot be decoded and are skipped: damaged, or of another version of their type"
        for topic, count in contents.unreadable.items()
    ]
    stamps = {frame.key for frame in contents.frames}
    if len(stamps) < len(contents.frames):
        notes.append(f"{len(contents.frames) - len(stamps)} frames repeat the stamp of another one")
    truth = Truth(labels)
    plan = make_plan(contents, truth, options.query, topics.query)
    notes += plan.notes
    return Material(bag, topics, contents, truth, source, plan, sizes, tuple(n for n in notes if n))


def without_misfits(material: Material, replies: Replies) -> Material:
    """The material without labels that were made on pictures of another size than the frames have."""
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

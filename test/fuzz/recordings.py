"""Targets: what a run leaves behind, and recordings as acs-replay reads them."""

from __future__ import annotations

import gzip
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from acs_core.evaluation.layout import to_dict
from acs_core.evaluation.records import Evaluation, Group, Prediction, Question, Run
from acs_core.evaluation.storage import EvaluationError, load
from acs_core.geometry import Box
from acs_core.plain_text import printable
from acs_core.serialize import result_to_dict
from acs_core.types import GroundingResult, ScoreKind
from acs_ros.bags.bags import BagWriter
from acs_ros.bags.frames import FrameAt
from acs_ros.bags.reader import Bag
from acs_ros.errors import BagError
from acs_ros.replay.journal import AnswerJournal
from fuzz.bag_parts import few_frames
from fuzz.draw import FuzzedData, change_bytes
from fuzz.files import changed_json
from fuzz.scratch import scratch, write
from fuzz.target import Broken, Target


@cache
def good_evaluation() -> dict[str, Any]:
    """One group of two questions with a run over them, as JSON values."""
    box = Box(1, 2, 11, 12)
    asked = (
        Question("1:key", "key", "key", "a.png", (40, 30), (box,)),
        Question("2", "mug", "mug", "b.png", (9, 9), ()),
    )
    answers = (Prediction((box,), (0.5,), 0.7, 12.0), Prediction(reason="nothing there"))
    return to_dict(Evaluation("t", (Group("g", "single", asked, (Run("acs-free", 0.5, 10, answers),)),), {"a": "b"}))


def evaluation(draw: FuzzedData) -> None:
    """An evaluation is read, packed or not, or refused by name."""
    data = changed_json(draw, good_evaluation())
    packed = draw.chance(2)
    if packed:
        data = gzip.compress(data, mtime=0)
        data = change_bytes(draw, data, 1) if draw.chance(4) else data
    found = load(write(f"evaluation.json{'.gz' if packed else ''}", data))
    if load(write("again.json", json.dumps(to_dict(found)).encode())) != found:
        raise Broken("an evaluation that is another one when it is read again")


def answers(draw: FuzzedData) -> None:
    """The answers of a stopped run are read, or asked again; never an error."""
    folder = scratch() / "answers"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    result = GroundingResult("key", (40, 30), (), (), (), "acs-free", ScoreKind.NONE, "m", None, 1)
    known = {"stamp": "1.000000000", "frame_id": "", "digest": "d", "phrase": "key", "latency_ms": 1.0, "problem": ""}
    with AnswerJournal(folder, {}) as journal:
        file = journal.file
    lines = [changed_json(draw, known | {"result": result_to_dict(result)}) for _ in range(draw.integer(1, 3))]
    file.write_bytes(b"\n".join([b'{"settings": {}}', *lines, b"x" * draw.pick((0, 5))]))
    with AnswerJournal(folder, {}) as journal:
        journal.get(FrameAt(0, 0, 10**9, ""), "d", "key")


@cache
def good_bag(storage: str) -> Path:
    """A bag of three frames in ``storage``."""
    folder = scratch() / f"good_{storage}"
    with BagWriter(folder, storage) as bag:
        for frame in few_frames():
            bag.write_frame(frame)
    return folder


def recording(draw: FuzzedData) -> None:
    """A bag gives messages up to where it breaks and says so in printable words, or is a BagError."""
    good = good_bag(draw.pick(("mcap", "sqlite3")))
    folder = scratch() / "recording"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(good, folder)
    file = draw.pick(sorted(folder.iterdir()))
    data = file.read_bytes()
    data = change_bytes(draw, data, draw.integer(1, 5)) if draw.chance(2) else data[: draw.integer(0, len(data))]
    file.write_bytes(data)
    if draw.chance(4):
        (folder / "metadata.yaml").unlink()
    with Bag(folder) as bag:
        if sum(1 for _ in bag.messages(tuple(bag.topics))) > 1000:
            raise Broken("more messages than the bag has")
        if any(printable(note) != note or len(note) > 1000 for note in bag.notes):
            raise Broken(f"a note that is too long or not printable: {bag.notes!r:.200}")


TARGETS = (
    Target("evaluation", "evaluations, packed and not", evaluation, (EvaluationError,)),
    Target("answers", "answers of a run that was stopped", answers, ()),
    Target("recording", "bags as acs-replay reads them: mcap and sqlite3, changed and cut", recording, (BagError,)),
)

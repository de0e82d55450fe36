"""What the tests of acs-replay share: runs of the command on a fake grounder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from acs_ros.bags.frames import FrameAt
from acs_ros.replay.cli import main

PERIOD_NS = 250_000_000  # as in the bags of make_bag


@dataclass(frozen=True)
class Told:
    """How a run of the command ended."""

    code: int
    out: str
    err: str
    folder: Path


@pytest.fixture
def replay(grounder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """Runs acs-replay on the fake grounder."""

    def run(*arguments: object, out: str = "out") -> Told:
        folder = tmp_path / out
        words = [str(a) for a in arguments]
        if "--compare" not in words and "--extract" not in words:
            words += ["--out", str(folder)]
        try:
            code = main(words, load=lambda settings: grounder)
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        said = capsys.readouterr()
        return Told(code, " ".join(said.out.split()), said.err, folder)

    return run


@pytest.fixture
def at() -> Callable[..., FrameAt]:
    """A frame by its number, recorded and stamped at the same time."""

    def make(number: int, stamp_ns: int | None = None, frame_id: str = "camera") -> FrameAt:
        stamp = (number + 1) * PERIOD_NS if stamp_ns is None else stamp_ns
        return FrameAt(number, stamp, stamp, frame_id)

    return make

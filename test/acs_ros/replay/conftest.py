"""What the tests of acs-replay share: small bags in both storages, and runs of the command on a fake grounder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from std_msgs.msg import String

from acs_core.geometry import Box
from acs_ros.bags import BagFrame, BagWriter
from acs_ros.frames import encode_jpeg
from acs_ros.replay.cli import main
from acs_ros.replay.contents import FrameAt

PERIOD_NS = 250_000_000
CHOSEN = Box(1, 2, 4, 5)  # what the fake grounder answers


def make_frames(count: int, phrase: str = "key", noise: bool = False) -> list[BagFrame]:
    """Frames of 40 x 30 pixels, stamped from 0.25 s on; the label is what the fake grounder answers. With ``noise``
    zstd cannot make them small."""
    rng = np.random.default_rng(3)
    made = []
    for i in range(count):
        image = rng.integers(0, 256, (300, 400, 3), np.uint8) if noise else np.full((30, 40, 3), 10 * i, np.uint8)
        made.append(BagFrame((i + 1) * PERIOD_NS, image, ((phrase, CHOSEN),)))
    return made


@pytest.fixture
def frames() -> Callable[..., list[BagFrame]]:
    return make_frames


@pytest.fixture
def make_bag(tmp_path: Path) -> Callable[..., Path]:
    """Writes a bag of frames; ``queries`` are pairs of a time in ns and a text."""

    def make(
        name: str = "bag",
        frames: list[BagFrame] | None = None,
        storage: str = "mcap",
        truth: bool = True,
        compressed: bool = False,
        queries: tuple[tuple[int, str], ...] = (),
    ) -> Path:
        frames = make_frames(4) if frames is None else frames
        messages: list[tuple[int, str, Any]] = [(at, "/grounding/query", String(data=text)) for at, text in queries]
        for frame in frames:
            if truth:
                messages.append((frame.stamp_ns, "/ground_truth", frame.truth_message))
            image = encode_jpeg(frame.image, frame.header) if compressed else frame.image_message
            messages.append((frame.stamp_ns, "/camera/image", image))
        with BagWriter(tmp_path / name, storage) as bag:
            for at, topic, msg in sorted(messages, key=lambda m: m[0]):
                bag.write(topic, msg, at)
        return tmp_path / name

    return make


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

"""The examples of README and docs that ask about docs/sample.png, run as they stand there: each must give the answer
that a person sees. docs/sample.json has the true boxes."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from acs_core import Grounder, GroundingResult
from acs_core.cli import main
from acs_core.geometry import Box

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GENERATED = {"api.md", "commands.md"}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
INLINE = re.compile(r"`((?:\.venv/bin/)?acs-ground docs/sample\.png[^`]*)`")
# Models that a reader has only after other steps; none of them can be had by a test.
ELSEWHERE = {"runs/files"}
TRUTH = {k: Box(*v) for k, v in json.loads((ROOT / "docs/sample.json").read_text())["boxes"].items()}
ABSENT_SCORE = 0.3  # highest score of a box for something that the picture does not show


def commands() -> Iterator[tuple[str, str]]:
    """The page and the text of each acs-ground command about the sample."""
    for page in PAGES:
        if page.name in GENERATED:
            continue
        text = page.read_text()
        inside = [body.replace("\\\n", " ") for kind, body in FENCE.findall(text) if kind in ("", "bash", "sh")]
        lines = [line for body in inside for line in body.splitlines()]
        lines += INLINE.findall(FENCE.sub("", text))
        for line in lines:
            if "acs-ground docs/sample.png" in line and "container_steps" not in line:
                yield str(page.relative_to(ROOT)), line.partition(" #")[0].strip()


def programs() -> Iterator[tuple[str, str]]:
    """The page and the text of each Python program that grounds a phrase in the sample."""
    for page in PAGES:
        if page.name not in GENERATED | {"client.md"}:  # that one has a test of its own
            for kind, body in FENCE.findall(page.read_text()):
                if kind == "python" and "docs/sample.png" in body and "from_pretrained" in body:
                    yield str(page.relative_to(ROOT)), body


def check(phrase: str, boxes: list[Box], scores: list[float]) -> None:
    """The best box is the object that a person sees; or nothing, or a low score, where there is none."""
    if phrase in TRUTH:
        assert boxes, f"{phrase!r} is in the picture, and was not found"
        assert boxes[0].iou(TRUTH[phrase]) >= 0.5, f"{phrase!r}: {boxes[0]} is not at {TRUTH[phrase]}"
    else:
        assert not boxes or scores[0] < ABSENT_SCORE, f"{phrase!r} is not in the picture, but got the score {scores[0]}"


@pytest.fixture(autouse=True)
def copy(tmp_path, monkeypatch):
    """A folder with what the examples read, as a reader's own copy of the project."""
    (tmp_path / "docs").mkdir()
    for file in ("sample.png", "sample.json"):
        shutil.copy(ROOT / "docs" / file, tmp_path / "docs")
    monkeypatch.chdir(tmp_path)


def test_there_are_examples():
    assert len(list(commands())) >= 3 and list(programs())
    assert {page for page, _ in commands()} >= {"README.md", "docs/tutorial.md"}


@pytest.mark.parametrize(("page", "line"), sorted(set(commands())))
def test_a_command_gives_the_answer_that_a_person_sees(page, line, capsys):
    words = shlex.split(line)
    if ELSEWHERE & {*words}:
        pytest.skip("needs files that the page makes before")
    arguments = [w for w in words[1:] if w not in ("--json", "answer.json")]
    code = main([*arguments, "--json", "told.json"])
    told = json.loads(Path("told.json").read_text())
    results = told.get("results", [told])
    for result in results:
        found = [(Box(*d["box"]), d["score"]) for d in result["detections"]]
        check(result["phrase"], [box for box, _ in found], [score for _, score in found])
    assert code == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize(("page", "program"), list(programs()))
def test_a_program_gives_the_answer_that_a_person_sees(page, program, capsys):
    names: dict[str, object] = {}
    exec(compile(program, page, "exec"), names)
    results = [v for v in names.values() if isinstance(v, GroundingResult)]
    assert results, "the program keeps its result"
    for result in results:
        assert isinstance(result.boxes, np.ndarray)
        check(result.phrase, [d.box for d in result.detections], list(result.scores))


def test_the_default_model_finds_everything_in_the_sample():
    grounder = Grounder.from_pretrained()
    for result in grounder.ground_many("docs/sample.png", list(TRUTH), seed=1):
        check(result.phrase, [d.box for d in result.detections], list(result.scores))

import errno
import gzip
import json
import os
import zlib

import pytest
from bounded_parts import bounded
from eval_parts import evaluation
from hypothesis import given, settings
from hypothesis import strategies as st

from acs_core.artifacts.json_io import Limits
from acs_core.evaluation.layout import from_dict, to_dict
from acs_core.evaluation.records import EntropyProfile, Evaluation, Group, Prediction, Question, RegressorAccuracy, Run
from acs_core.evaluation.storage import EvaluationError, load, save
from acs_core.geometry import Box

words = st.text(max_size=8)
pixels = st.floats(-1e6, 1e6)
boxes = st.builds(Box, pixels, pixels, pixels, pixels)
shares = st.floats(0, 1)
finite = st.floats(-1e9, 1e9)


@st.composite
def answers(draw):
    found = tuple(draw(st.lists(boxes, max_size=3)))
    scores = tuple(draw(shares) for _ in found) if draw(st.booleans()) else ()
    return Prediction(found, scores, draw(st.none() | shares), draw(st.none() | st.floats(0, 1e6)), draw(words))


@st.composite
def groups(draw):
    count = draw(st.integers(0, 3))
    sides = st.integers(1, 9999)
    asked = tuple(
        Question(
            draw(words),
            draw(words),
            draw(words),
            draw(words),
            (draw(sides), draw(sides)),
            tuple(draw(st.lists(boxes, max_size=2))),
        )
        for _ in range(count)
    )
    settings_of = draw(
        st.lists(st.tuples(words, st.none() | st.floats(0.01, 2), st.integers(1, 30)), max_size=2, unique=True)
    )
    runs = tuple(
        Run(
            *s,
            tuple(draw(answers()) for _ in range(count)),
            draw(st.sampled_from(["ours", "bound"])),
            draw(st.booleans()),
        )
        for s in settings_of
    )
    return Group(draw(words), draw(st.sampled_from(["single", "several"])), asked, runs)


evaluations = st.builds(
    Evaluation,
    words,
    st.lists(groups(), max_size=2, unique_by=lambda group: group.name).map(tuple),
    st.dictionaries(words, words, max_size=2),
    st.lists(st.builds(RegressorAccuracy, finite, st.integers(0, 9), finite, finite, words), max_size=2).map(tuple),
    st.lists(
        st.builds(EntropyProfile, words, words, st.integers(0, 9), st.lists(finite, max_size=3).map(tuple)), max_size=2
    ).map(tuple),
    st.lists(st.integers(0, 99), max_size=3).map(tuple),
)


@given(evaluations)
@settings(max_examples=60)
def test_what_is_read_is_what_was_written(written):
    read = from_dict(json.loads(json.dumps(to_dict(written), allow_nan=False)))
    assert from_dict(to_dict(read)) == read  # rounded once, and never again
    assert (read.title, read.facts, read.regressions, read.entropy) == (
        written.title,
        written.facts,
        written.regressions,
        written.entropy,
    )
    for there, back in zip(written.groups, read.groups, strict=True):
        assert [q.key for q in there.questions] == [q.key for q in back.questions]
        for ran, again in zip(there.runs, back.runs, strict=True):
            assert (ran.method, ran.temperature, ran.samples, ran.kind, ran.learned) == (
                again.method,
                again.temperature,
                again.samples,
                again.kind,
                again.learned,
            )
            for answer, same in zip(ran.answers, again.answers, strict=True):
                assert answer.reason == same.reason
                assert same.scores == pytest.approx(answer.scores, abs=1e-6)
                assert [b.as_tuple() for b in same.boxes] == [
                    pytest.approx(b.as_tuple(), abs=0.0051) for b in answer.boxes
                ]


@pytest.mark.parametrize("name", ["evaluation.json", "evaluation.json.gz"])
def test_files(tmp_path, name):
    file = tmp_path / "made" / name
    kept = save(evaluation(10), file)
    assert load(file) == kept
    assert kept.groups[0].questions[3].key == evaluation(10).groups[0].questions[3].key
    before = file.read_bytes()
    save(evaluation(10), file)
    assert file.read_bytes() == before and [p.name for p in file.parent.iterdir()] == [name]


@pytest.mark.parametrize("name", ["evaluation.json", "evaluation.json.gz"])
@pytest.mark.parametrize("limits", [Limits(10**4, 10**7), Limits(10**7, 10**3)])
def test_what_could_not_be_read_again_is_not_written(tmp_path, monkeypatch, name, limits):
    file = tmp_path / name
    small = save(evaluation(1, several=False), file)
    monkeypatch.setattr("acs_core.evaluation.storage.LIMITS", limits)
    with pytest.raises(EvaluationError, match=r"cannot be kept.*fewer questions"):
        save(evaluation(100), file)
    monkeypatch.undo()
    assert load(file) == small


def test_an_unreadable_file_is_not_called_damaged(tmp_path, monkeypatch):
    file = tmp_path / "evaluation.json"
    save(evaluation(1), file)

    def fail(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("acs_core.artifacts.json_io.os.open", fail)
    with pytest.raises(PermissionError, match=r"evaluation\.json"):
        load(file)


def test_the_layout_is_compact(tmp_path):
    file = tmp_path / "evaluation.json"
    made = evaluation(100, several=False)
    save(made, file)
    answered = sum(len(run.answers) for run in made.groups[0].runs)
    assert file.stat().st_size < 100 * answered  # bytes an answer, with its box, score, expected IoU and latency


def broken(change):
    data = to_dict(evaluation(4, several=False))
    change(data, data["groups"][0], data["groups"][0]["runs"][-1])
    return data


DAMAGE = {
    "another version": (lambda d, g, r: d.update(schema_version=2), '"schema_version" is 2'),
    "no title": (lambda d, g, r: d.pop("title"), '"title"'),
    "facts": (lambda d, g, r: d.update(facts=[1]), '"facts"'),
    "groups": (lambda d, g, r: d.update(groups=7), '"groups" must be a list'),
    "a group": (lambda d, g, r: d.update(groups=[7]), r"groups\[0\] must be an object"),
    "two of a name": (lambda d, g, r: d["groups"].append(g), "name of its own"),
    "objects": (lambda d, g, r: g.update(objects="many"), r"groups\[0\].*single"),
    "questions": (lambda d, g, r: g.update(questions=[]), '"questions"'),
    "a short list": (lambda d, g, r: g["questions"]["truth"].pop(), '"truth" must have 4 entries'),
    "a key": (lambda d, g, r: g["questions"]["key"].__setitem__(1, 5), "question 1"),
    "a size": (lambda d, g, r: g["questions"]["size"].__setitem__(1, [5]), "2 numbers"),
    "an answer too many": (lambda d, g, r: r["boxes"].append([]), '"boxes" must have 4 entries'),
    "half a box": (lambda d, g, r: r["boxes"].__setitem__(2, [1, 2]), "answer 2: boxes are four numbers"),
    "a word in a box": (lambda d, g, r: r["boxes"].__setitem__(2, ["1", 2, 3, 4]), "answer 2.*finite"),
    "a score too many": (lambda d, g, r: r.update(boxes=[[]] * 4, scores=[[0.5]] * 4), "1 scores for 0 boxes"),
    "a score too high": (lambda d, g, r: r.update(boxes=[[1, 2, 3, 4]] * 4, scores=[[1.5]] * 4), r"\[0, 1\]"),
    "a reason": (lambda d, g, r: r.update(reasons=["a"], reason=[0, 0, 0, 1]), "answer 3.*reason"),
    "learned": (lambda d, g, r: r.update(learned="yes"), '"learned"'),
    "samples": (lambda d, g, r: r.update(samples="ten"), '"samples"'),
    "an entropy": (lambda d, g, r: d["entropy"][0].update(by_layer=None), "by_layer"),
    "a regression": (lambda d, g, r: d["regressions"][0].pop("mae"), r"regressions\[0\].*mae"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_say_what_is_wrong(tmp_path, name):
    change, told = DAMAGE[name]
    file = tmp_path / "e.json"
    file.write_text(json.dumps(broken(change)))
    with pytest.raises(EvaluationError, match=told) as error:
        load(file)
    assert str(file) in str(error.value) and "acs-train evaluate" in str(error.value)


def test_files_that_are_none(tmp_path):
    whole = gzip.compress(json.dumps(to_dict(evaluation(4))).encode())
    cases = {
        "missing.json": (None, "does not exist"),
        "cut.json.gz": (whole[:-20], "cut short"),
        "plain.json.gz": (b"{}", "gzip"),
        "text.json": (b"hello", "valid JSON"),
        "list.json": (b"[]", "one JSON object"),
        "nan.json": (b'{"schema_version": NaN}', "NaN"),
        "bytes.json": (b"\xff\xfe", "damaged"),
    }
    for name, (content, told) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(EvaluationError, match=told):
            load(tmp_path / name)


def test_what_cannot_be_written_is_refused_before_the_file_is_touched(tmp_path):
    made = evaluation(2, several=False)
    group = made.groups[0]
    bad = Run("bad", None, 1, (Prediction((Box(0, 0, 1, 1),), (0.1, 0.2)),) * 2)
    file = tmp_path / "e.json"
    with pytest.raises(ValueError, match="bad"):
        save(Evaluation("t", (Group("g", "single", group.questions, (bad,)),)), file)
    assert not file.exists()


BOMBS = {
    "lists": (b'{"schema_version":1,"title":"t","groups":[', b"[],", b"[]]}"),
    "objects": (b'{"schema_version":1,"groups":[', b'{"":0},', b"{}]}"),
    "blanks": (b'{"schema_version":1', b" " * 100, b"}"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_packed_file_stays_small(tmp_path, name):
    """Hundreds of megabytes of text in two, and tens of millions of values in them."""
    begin, piece, end = BOMBS[name]
    file = tmp_path / "evaluation.json.gz"
    squeeze = zlib.compressobj(9, wbits=31)
    block = piece * (2**20 // len(piece))
    with file.open("wb") as out:
        out.write(squeeze.compress(begin))
        for _ in range(200):
            out.write(squeeze.compress(block))
        out.write(squeeze.compress(end) + squeeze.flush())
    assert file.stat().st_size < 2_000_000
    found = bounded("from acs_core.evaluation.storage import load", "load(argument)", file)
    assert found.said.startswith("EvaluationError") and "larger than 128 MiB" in found.said
    assert found.grown_mb < 300, found


def test_values_are_bounded_below_the_limit_of_bytes(tmp_path):
    file = tmp_path / "evaluation.json.gz"
    file.write_bytes(gzip.compress(b'{"schema_version":1,"groups":[' + b"[]," * 20_000_000 + b"[]]}", 9))
    found = bounded("from acs_core.evaluation.storage import load", "load(argument)", file)
    assert "more than 10,000,000 values" in found.said and found.grown_mb < 300, found

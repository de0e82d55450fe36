"""A report must say what the journal says, and call by name what did not hold."""

import json

import pytest

from acs_ros.stress.soak_journal import JOURNAL, ReportError, read_journal
from acs_ros.stress.soak_report import draw, summarise, table_of, write_summary

ROUNDS = 8


def journal(mb=lambda k: 600.0, fds=lambda k: 20, ms=lambda k: 50.0, cpu=lambda k: 0.5, problems=(), end=True):
    """Notes of a soak of ROUNDS rounds; the functions give what round k saw."""
    asked = {"params": "tiny.yaml", "model": "", "seed": 0, "wanted": 8}
    notes = [{"kind": "begin", "minute": 0.0, "machine": {"cores": 2}, **asked}]
    for k in range(ROUNDS):
        seen = {"rss_mb": mb(k), "fds": fds(k), "threads": 10, "cpu_s": k, "load": 1.0, "minute": float(k)}
        record = {"kind": "course", "minute": float(k), "cycle": k + 1, "counts": {"frames": 10}}
        notes += [
            {"kind": "sample", **seen},
            {"kind": "rest", **seen},
            {**record, "name": "probe", "problems": [], "latencies_ms": [ms(k)] * 10, "cpu_s": cpu(k)},
            {**record, "name": "flood", "problems": list(problems), "latencies_ms": [], "cpu_s": 3.0},
        ]
    if end:
        notes.append({"kind": "end", "minute": float(ROUNDS), "answers_checked": 123})
    return notes


def bad(notes) -> list[str]:
    return [verdict.text for verdict in summarise(notes).verdicts if not verdict.holds]


def test_a_good_soak_holds():
    found = summarise(journal())
    assert bad(journal()) == []
    assert (found.minutes, found.answers, found.finished, found.peak_mb) == (8.0, 123, True, 600.0)
    assert [(e.name, e.runs, e.problems, e.counts["frames"]) for e in found.episodes] == [
        ("probe", 8, 0, 80),
        ("flood", 8, 0, 80),
    ]
    assert [q.rounds for q in found.quarters] == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("notes", "word"),
    [
        (journal(mb=lambda k: 600.0 + 10 * k), "memory"),
        (journal(fds=lambda k: 20 + k), "open files"),
        (journal(cpu=lambda k: 0.5 + 0.1 * k), "CPU time"),
        (journal(problems=["an answer was lost"]), "8 broken promises"),
        (journal(end=False), "did not come to its planned end"),
    ],
)
def test_what_did_not_hold_is_named(notes, word):
    (told,) = bad(notes)
    assert word in told


@pytest.mark.parametrize(
    "notes",
    [
        journal(mb=lambda k: 400.0 if k < 2 else 600.0),  # the first quarter fills caches
        journal(mb=lambda k: 900.0 - 10 * k),
        journal(ms=lambda k: 50.0 * (1 + k)),  # something else took the machine
    ],
)
def test_what_is_no_growth_holds(notes):
    assert bad(notes) == []


def test_a_node_that_died_is_a_broken_promise():
    notes = [*journal(end=False), {"kind": "died", "minute": 9.0, "problem": "exit code -11", "last_lines": ""}]
    found = summarise(notes)
    assert any("exit code -11" in problem for problem in found.problems)


def test_a_soak_without_a_whole_round_says_so():
    with pytest.raises(ReportError, match="first round"):
        summarise(journal()[:2])


def test_a_journal_that_was_cut_off_is_read_up_to_there(tmp_path):
    lines = [json.dumps(note) for note in journal()]
    (tmp_path / JOURNAL).write_text("\n".join(lines)[:-10])
    assert len(read_journal(tmp_path)) == len(lines) - 1


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "does not begin"),
        ('{"kind": "end"}\n', "does not begin"),
        ('{"kind": "begin"}\nnonsense\n{"kind": "end"}\n', "line 2 is not JSON"),
        ('{"kind": "begin"}\n[1]\n', "line 2 is none"),
    ],
)
def test_what_is_no_journal_is_named(tmp_path, text, word):
    (tmp_path / JOURNAL).write_text(text)
    with pytest.raises(ReportError, match=word):
        read_journal(tmp_path)


def test_no_journal_says_how_to_make_one(tmp_path):
    with pytest.raises(ReportError, match="acs-soak --out"):
        read_journal(tmp_path / "nowhere")


def test_the_report_is_written_and_drawn(tmp_path):
    from PIL import Image

    found = summarise(journal())
    written = json.loads(write_summary(found, tmp_path).read_text())
    assert written["answers"] == 123
    assert "series" not in written
    with Image.open(draw(found, tmp_path)) as picture:
        assert picture.width > 500
    assert table_of(found).row_count == 2


def test_nodes_that_froze_are_counted_and_told():
    notes = journal()
    assert summarise(notes).freezes == 0 and "stood still" not in str(summarise(notes).verdicts)
    notes[5:5] = [{"kind": "froze", "minute": 1.0, "last_lines": ""}] * 2
    found = summarise(notes)
    assert found.freezes == 2 and bad(notes) == []
    assert any("stood still in the middleware 2 times" in verdict.text for verdict in found.verdicts)

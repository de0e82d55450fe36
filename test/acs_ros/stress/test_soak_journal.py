import json

import pytest

from acs_core.errors import OutputError
from acs_ros.stress.soak_journal import JOURNAL, SoakLog


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_each_line_is_there_at_once_and_none_follows_the_end(tmp_path):
    file = tmp_path / JOURNAL
    with SoakLog(file) as journal:
        journal.note("begin", seed=3)
        (first,) = lines(file)
        assert next(iter(first.items())) == ("written_by", "acs-soak")
        assert (first["kind"], first["seed"]) == ("begin", 3) and 0 <= first["minute"] <= journal.minutes + 0.001
        journal.note("course", problems=["one"])
        assert [line["kind"] for line in lines(file)] == ["begin", "course"]
    journal.note("sample")  # the watch may be a moment late
    assert len(lines(file)) == 2


def test_a_journal_replaces_another_one_and_nothing_else(tmp_path):
    file = tmp_path / JOURNAL
    for seed in (1, 2):
        with SoakLog(file) as journal:
            journal.note("begin", seed=seed)
        (line,) = lines(file)
        assert line["seed"] == seed
    foreign = '{"kind": "begin", "machine": {}}\n'
    file.write_text(foreign)
    with pytest.raises(OutputError, match="acs did not write it"):
        SoakLog(file)
    assert file.read_text() == foreign

import json

from acs_stress.journal import JOURNAL, Journal


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_each_line_is_there_at_once_and_none_follows_the_end(tmp_path):
    file = tmp_path / JOURNAL
    with Journal(file) as journal:
        journal.note("begin", seed=3)
        (first,) = lines(file)
        assert (first["kind"], first["seed"]) == ("begin", 3) and 0 <= first["minute"] <= journal.minutes + 0.001
        journal.note("course", problems=["one"])
        assert [line["kind"] for line in lines(file)] == ["begin", "course"]
    journal.note("sample")  # the watch may be a moment late
    assert len(lines(file)) == 2

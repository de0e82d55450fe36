from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from acs_core.geometry import Box
from acs_ros.replay.journal import AnswerJournal, Kept, digest_of


@pytest.fixture
def kept(result):
    return Kept(replace(result("key"), attention=None), 12.3456)


def test_answers_are_found_again_and_are_what_was_given_back(tmp_path, at, kept):
    with AnswerJournal(tmp_path, {"samples": 3}) as journal:
        assert (journal.found, journal.others, journal.get(at(0), "d", "key")) == (0, 0, None)
        given = journal.add(at(0), "d", "key", kept)
    with AnswerJournal(tmp_path, {"samples": 3}) as journal:
        assert journal.found == 1
        assert journal.get(at(0), "d", "key") == given
        assert given.result == kept.result and given.latency_ms == 12.346


@pytest.mark.parametrize(
    ("frame", "digest", "phrase"),
    [
        ({"number": 1}, "d", "key"),
        ({"number": 0, "frame_id": "left"}, "d", "key"),
        ({"number": 0}, "e", "key"),
        ({"number": 0}, "d", "cup"),
    ],
)
def test_another_frame_picture_or_phrase_is_another_question(tmp_path, at, kept, frame, digest, phrase):
    with AnswerJournal(tmp_path, {}) as journal:
        journal.add(at(0), "d", "key", kept)
    with AnswerJournal(tmp_path, {}) as journal:
        assert journal.get(at(**frame), digest, phrase) is None


def test_other_settings_begin_anew_and_keep_what_there_was(tmp_path, at, kept):
    with AnswerJournal(tmp_path, {"samples": 3}) as journal:
        journal.add(at(0), "d", "key", kept)
    with AnswerJournal(tmp_path, {"samples": 4}) as journal:
        assert (journal.found, journal.others) == (0, 1)
    with AnswerJournal(tmp_path, {"samples": 3}) as journal:
        assert (journal.found, journal.others) == (1, 1)
    lines = [json.loads(f.read_text().splitlines()[0]) for f in tmp_path.glob("answers-*.jsonl")]
    assert {line["settings"]["samples"] for line in lines} == {3, 4}


def test_a_line_that_was_cut_short_is_asked_again_and_spoils_no_other(tmp_path, at, kept):
    with AnswerJournal(tmp_path, {}) as journal:
        journal.add(at(0), "d", "key", kept)
        journal.add(at(1), "d", "key", kept)
        file = journal.file
    file.write_bytes(file.read_bytes()[:-40])
    with AnswerJournal(tmp_path, {}) as journal:
        assert journal.found == 1 and journal.get(at(1), "d", "key") is None
        journal.add(at(2), "d", "key", kept)
    with AnswerJournal(tmp_path, {}) as journal:
        assert journal.found == 2 and journal.get(at(2), "d", "key") is not None


def test_the_digest_is_that_of_the_bytes():
    assert digest_of(b"a") == digest_of(b"a") != digest_of(b"b")


@pytest.mark.parametrize("seed", range(40))
def test_a_line_that_was_changed_is_asked_again_and_never_read_otherwise(tmp_path, at, kept, seed):
    with AnswerJournal(tmp_path, {}) as journal:
        whole = [journal.add(at(number), "d", "key", kept) for number in range(3)]
    content, rng = bytearray(journal.file.read_bytes()), random.Random(seed)
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    journal.file.write_bytes(content)
    with AnswerJournal(tmp_path, {}) as journal:
        found = [journal.get(at(number), "d", "key") for number in range(3)]
        assert all(answer in (given, None) for answer, given in zip(found, whole, strict=True))
        assert found.count(None) <= 2
        for number, answer in enumerate(found):
            if answer is None:
                journal.add(at(number), "d", "key", kept)
    with AnswerJournal(tmp_path, {}) as journal:
        assert [journal.get(at(number), "d", "key") for number in range(3)] == whole


def test_answers_under_other_settings_are_not_taken_though_the_file_has_the_name(tmp_path, at, kept):
    with AnswerJournal(tmp_path, {"samples": 3}) as one:
        one.add(at(0), "d", "key", kept)
    with AnswerJournal(tmp_path, {"samples": 4}) as other:
        pass
    other.file.write_bytes(one.file.read_bytes())
    with AnswerJournal(tmp_path, {"samples": 4}) as journal:
        assert journal.found == 0


def test_an_answer_of_a_second_look_comes_back_with_its_window(tmp_path, at, kept):
    looked = replace(kept, result=replace(kept.result, window=Box(1.0, 2.0, 30.5, 40.0)))
    with AnswerJournal(tmp_path, {}) as journal:
        journal.add(at(0), "d", "key", looked)
    with AnswerJournal(tmp_path, {}) as journal:
        assert journal.get(at(0), "d", "key").result.window == Box(1.0, 2.0, 30.5, 40.0)

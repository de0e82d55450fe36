"""Second looks offline, with an embedded model: the same answers as at run time."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from tiny_parts import some_pairs
from typer.testing import CliRunner

from acs_core.artifacts.registry import ASSETS, resolve_model
from acs_core.geometry import Box, best_iou
from acs_core.grounder import Grounder
from acs_core.lvlm import load_lvlm
from acs_core.selection.defaults import scorer_for
from acs_core.types import SamplingConfig, SecondLook
from training.cli import main
from training.collection.collect import collect
from training.collection.job import CollectConfig, config_of
from training.collection.offline_selection import calls, choices_of
from training.collection.second_look import joined_calls, look_again, second_job, windows_of
from training.collection.store import read_manifest, read_responses, read_store
from training.errors import DataError
from training.evaluation.cache import collection_name
from training.fitting import calibrate as calibrating
from training.fitting.artifacts import files_folder

FIRST = CollectConfig(samples=4, temperature=0.5, max_new_tokens=64, seed=11)
LOOK = SecondLook(samples=2)


@pytest.fixture(scope="module")
def lvlm():
    return load_lvlm(resolve_model("tiny-internvl"), device="cpu")


@pytest.fixture(scope="module")
def scorer(lvlm):
    return scorer_for(lvlm, "acs-fusion")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return some_pairs(tmp_path_factory.mktemp("world"), "test", 6)


def asked(lvlm, pairs, folder, config=FIRST):
    collect(lvlm, pairs, folder, config)
    return list(calls(read_store(folder), True, read_responses(folder)))


@pytest.fixture(scope="module")
def first(lvlm, pairs, tmp_path_factory):
    return asked(lvlm, pairs, tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def windows(first, scorer):
    found = windows_of(first, scorer, LOOK)
    assert len(found) >= 2
    return found


@pytest.fixture(scope="module")
def job(pairs, windows):
    return second_job(pairs, windows, FIRST, LOOK)


@pytest.fixture(scope="module")
def folder(lvlm, job, tmp_path_factory):
    folder = tmp_path_factory.mktemp("second")
    collect(lvlm, job.pairs, folder, job.config)
    return folder


def test_a_pair_within_a_window_asks_about_the_enlarged_part(pairs, job, windows):
    number = min(windows)
    pair, whole = job.pairs[0], pairs[number]
    assert (pair.key, pair.window) == (whole.key, windows[number])
    np.testing.assert_array_equal(pair.read(), windows[number].enlarged(whole.read()))
    back = windows[number].to_picture(pair.truth[0])
    assert back.as_tuple() == pytest.approx(whole.truth[0].as_tuple())


def test_offline_and_at_run_time_the_same(lvlm, scorer, pairs, first, windows, folder, tmp_path):
    second = calls(read_store(folder), True, read_responses(folder))
    pair = next(pairs[c.pair] for c in joined_calls(first, second, windows) if {k.look for k in c.candidates} == {0, 1})
    first = asked(lvlm, [pair], tmp_path / "first")
    found = windows_of(first, scorer, LOOK)
    job = second_job([pair], found, FIRST, LOOK)
    (call,) = joined_calls(first, asked(lvlm, job.pairs, tmp_path / "second", job.config), found)
    assert {c.look for c in call.candidates} == {0, 1} and len(call.responses) == 6

    sampling = SamplingConfig(4, 0.5, max_new_tokens=64, seed=FIRST.seed)
    grounder = Grounder(lvlm, scorer.selector, scorer.calibration)
    result = grounder.ground(pair.read(), pair.category, sampling=sampling, second_look=LOOK, whole_responses=True)
    assert result.window.as_tuple() == pytest.approx(found[0].box.as_tuple())
    assert [r.text for r in call.responses] == [r.text for r in result.responses]
    for offline, online in zip(call.candidates, result.candidates, strict=True):
        assert (offline.response, offline.order, offline.look) == (online.response, online.order, online.look)
        assert offline.box.as_tuple() == pytest.approx(online.box.as_tuple())
    chosen = scorer.decide(call.candidates, call.responses, call.record, call.image_size)
    assert chosen.detections[0].box.as_tuple() == pytest.approx(result.best.box.as_tuple(), abs=1e-3)
    assert chosen.detections[0].score == pytest.approx(result.best.score, abs=1e-3)


def test_the_calls_of_both_looks(first, windows, folder):
    second = list(calls(read_store(folder), True, read_responses(folder)))
    both = list(joined_calls(first, second, windows))
    assert [c.pair for c in both] == [c.pair for c in first]
    for one, two in zip(first, both, strict=True):
        assert two.candidates[: len(one.candidates)] == one.candidates
        assert len(two.responses) == len(one.responses) + 2 * (one.pair in windows)
        assert len(two.index) == len(two.candidates) == len(two.record.entropy)
        assert not one.candidates or len(two.record.maps) == len(two.candidates)
        added = len(two.index) - len(one.index)
        assert two.index.tolist() == [*one.index.tolist(), *[-1] * added] and (one.pair in windows or not added)


def test_where_to_look_again_follows_from_the_first_collection(lvlm, scorer, pairs, windows, tmp_path):
    collect(lvlm, pairs, tmp_path / "first", FIRST)
    by_key = {pair.key: pair for pair in pairs}
    again = look_again(lvlm, scorer.selector, tmp_path / "first", by_key, tmp_path / "second", LOOK)
    assert [call.pair for call in again] == sorted(windows) and all(call.looked_again for call in again)
    assert {len(call.responses) for call in again} == {6}
    assert read_manifest(tmp_path / "second")["samples"] == 2

    data = read_store(tmp_path / "first")
    choices = choices_of(scorer.selector, again, data)
    for call, iou, best, image in zip(again, choices.iou, choices.oracle, choices.image, strict=True):
        seen = call.seen_by(scorer.selector)
        chosen = scorer.decide(seen.candidates, seen.responses, seen.record, seen.image_size)
        truth = data.truth(call.pair)
        assert iou == pytest.approx(best_iou(chosen.detections[0].box, truth))
        assert best == pytest.approx(max(best_iou(c.box, truth) for c in call.candidates), abs=1e-6)
        assert image == pairs[call.pair].image_id

    other = by_key | {pairs[0].key: replace(pairs[0], truth=(Box(0, 0, 9, 9),))}
    for wrong in ({}, other):
        with pytest.raises(DataError, match="other annotations"):
            look_again(lvlm, scorer.selector, tmp_path / "first", wrong, tmp_path / "second", LOOK)


@pytest.fixture(scope="module")
def to_calibrate(lvlm, pairs, tmp_path_factory):
    """A folder with a collection, a head file, and the arguments of the command."""
    folder = tmp_path_factory.mktemp("calibrate")
    collect(lvlm, pairs, folder / "work" / "val", FIRST)
    with files_folder(folder / "files", "acs-train analyze", ()) as files, files.stage() as staged:
        shutil.copy(ASSETS / "tiny-internvl" / "heads.json", staged)
    arguments = ["calibrate", "--store", str(folder / "work" / "val"), "--out", str(folder / "files")]
    model = ["--model", "tiny-internvl", "--data", str(pairs[0].file.parent.parent / "instances.json")]
    return folder, arguments, [*model, "--device", "cpu"]


def test_the_command_calibrates_both_and_the_files_are_used(lvlm, to_calibrate, windows, monkeypatch):
    folder, arguments, model = to_calibrate
    monkeypatch.setattr(calibrating, "MIN_CHOICES", 2)  # of few pairs
    done = CliRunner().invoke(main.app, [*arguments, "--second-look", "acs-fusion", *model])
    assert done.exit_code == 0, done.output
    assert "calibration-acs-fusion-second-look.json" in "".join(done.output.split())
    assert len(read_manifest(folder / "work" / "val-second-look-acs-fusion")["windows"]) == len(windows)
    made = scorer_for(lvlm, "acs-fusion", built=folder / "files")
    assert made.second_look.second_look and made.second_look.made_by.endswith(", with a second look")
    assert made.second_look.num_samples == len(windows) and not made.calibration.second_look


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--second-look", "acs-fusion"], "needs --model and --data"),
        (["--second-look", "greedy", "--model", "m", "--data", "d"], "greedy: choose of those with files"),
    ],
)
def test_what_the_command_lacks_is_said(to_calibrate, more, words):
    done = CliRunner().invoke(main.app, [*to_calibrate[1], *more])
    assert done.exit_code == 2 and words in " ".join(done.output.replace("│", " ").split())


def test_settings_are_read_back_from_the_manifest(job, folder):
    assert config_of(read_manifest(folder)) == job.config


def test_a_collection_of_windows_says_so_and_is_resumed(lvlm, job, folder):
    manifest = read_manifest(folder)
    assert manifest["windows"] == [[round(v, 3) for v in p.window.box.as_tuple()] for p in job.pairs]
    assert "-second-look-" in collection_name(manifest)
    assert collect(lvlm, job.pairs, folder, job.config).collected == 0
    window = job.pairs[0].window
    other = replace(job.pairs[0], window=replace(window, box=replace(window.box, x1=window.box.x1 + 1)))
    with pytest.raises(DataError, match="windows"):
        collect(lvlm, [other, *job.pairs[1:]], folder, job.config)


def test_nothing_is_looked_at_again_without_a_box(first, scorer):
    none = [replace(call, candidates=(), image_size=None) for call in first]
    assert windows_of(none, scorer, LOOK) == {}

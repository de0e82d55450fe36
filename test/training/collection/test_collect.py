import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_parts import some_pairs

from acs_core.artifacts.registry import resolve_model
from acs_core.generation.prefill import prefill
from acs_core.geometry import Box, best_iou
from acs_core.lvlm import load_lvlm
from training.collection import part
from training.collection.collect import ask, collect, collect_together
from training.collection.job import PAIRS_PER_PART, CollectConfig, Job, with_map_size
from training.collection.part import make_part
from training.collection.part_arrays import LEVELS, step_share
from training.collection.store import part_files, read_manifest, read_responses, read_skipped, read_store
from training.errors import DataError

FEW = CollectConfig(samples=3, max_new_tokens=64)
COUNT = 24


@pytest.fixture(scope="module")
def lvlm():
    return load_lvlm(resolve_model("tiny-internvl"), device="cpu")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return some_pairs(tmp_path_factory.mktemp("world"), "test", COUNT)


@pytest.fixture(scope="module")
def store(lvlm, pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    report = collect(lvlm, pairs, folder, FEW)
    assert (report.collected, report.resumed, report.skipped) == (COUNT, 0, ())
    return folder


def test_the_step_is_recorded_only_where_it_is_not_the_usual_one(lvlm, pairs, store, tmp_path):
    assert "step" not in read_manifest(store)
    collect(lvlm, pairs[:2], tmp_path / "later", replace(FEW, step="consuming"))
    assert read_manifest(tmp_path / "later")["step"] == "consuming"
    usual, later = read_store(store), read_store(tmp_path / "later")
    count = len(later.iou)
    assert (later.box == usual.box[:count]).all() and not np.allclose(later.entropy, usual.entropy[:count])
    # the maps are kept once for what has been read up to and with the token, and are those of the candidate
    config = replace(with_map_size(FEW, lvlm), step="consuming")
    _, _, record, _ = ask(lvlm, pairs[1].read(), pairs[1].category, config, config.seed + 1)
    here = np.flatnonzero(later.pair == 1)
    assert np.abs(later.maps[here] - record.maps).max() < 0.1 * record.maps.max()
    with pytest.raises(DataError, match="step"):
        collect(lvlm, pairs[:2], tmp_path / "later", FEW)


def test_every_candidate_has_its_iou_and_attention(lvlm, pairs, store):
    data = read_store(store)
    assert data.pairs.tolist() == list(range(COUNT))
    maps = data.maps[np.arange(len(data.iou))]
    assert len(data.iou) > COUNT and maps.shape[1:4] == (4, lvlm.num_layers, lvlm.num_heads)
    assert np.isfinite(maps).all() and (maps.sum(axis=(-2, -1)) <= 1.1).all()
    assert np.isfinite(data.entropy).all() and (data.entropy >= 0).all()
    for i in range(0, len(data.iou), 17):
        assert data.iou[i] == pytest.approx(best_iou(Box(*data.box[i]), pairs[data.pair[i]].truth), abs=1e-6)
        assert data.image[i] == pairs[data.pair[i]].image_id


def test_the_stored_maps_are_those_of_the_model(lvlm, pairs, store):
    data = read_store(store)
    config = with_map_size(FEW, lvlm)
    candidates, _, record, _ = ask(lvlm, pairs[3].read(), pairs[3].category, config, config.seed + 3)
    here = np.flatnonzero(data.pair == 3)
    assert len(here) == len(candidates) > 0
    np.testing.assert_allclose(data.entropy[here], record.entropy, atol=1e-4)
    error = np.sqrt(data.maps[here]) - np.sqrt(record.maps)
    roots = np.sqrt(record.maps)
    step = step_share(roots.shape[-2:]) * roots.std(axis=(-2, -1), keepdims=True)
    assert (np.abs(error) <= np.maximum(step, roots.max(axis=(-2, -1), keepdims=True) / LEVELS) * 1.1 + 1e-4).all()
    assert [tuple(t) for t in data.tokens[here].tolist()] == [c.coordinate_tokens for c in candidates]


def test_jobs_about_the_same_pairs_are_collected_together_as_if_apart(lvlm, pairs, tmp_path, monkeypatch):
    some = tuple(pairs[:12])
    settings = {"warm": FEW, "late": replace(FEW, step="consuming"), "greedy": replace(FEW, greedy=True)}
    reads = []
    monkeypatch.setattr(part, "prefill", lambda *a: reads.append(1) or prefill(*a))
    collect_together(lvlm, {tmp_path / name: Job(some, config) for name, config in settings.items()})
    pictures = [len({p.file for p in of_part}) for of_part in (some[:PAIRS_PER_PART], some[PAIRS_PER_PART:])]
    assert len(reads) == sum(pictures) < len(some), "once for all jobs and for all pairs about a picture"
    for name, config in settings.items():
        collect(lvlm, some, tmp_path / f"{name} alone", config)
        together, alone = read_store(tmp_path / name), read_store(tmp_path / f"{name} alone")
        assert together.manifest == alone.manifest
        for mine, theirs in zip(
            read_responses(tmp_path / name), read_responses(tmp_path / f"{name} alone"), strict=True
        ):
            for numbers in ("token_entropy", "token_logprob"):  # rounded to four digits
                np.testing.assert_allclose(mine.pop(numbers), theirs.pop(numbers), atol=2e-4)
            np.testing.assert_equal(mine, theirs)
        np.testing.assert_array_equal(together.box, alone.box)
        np.testing.assert_allclose(together.entropy, alone.entropy, atol=1e-4)
    # what is there is not made again, and one job does not wait for another's parts
    part_files(tmp_path / "late")[0].rename(tmp_path / "aside")
    before = len(reads)
    collect_together(lvlm, {tmp_path / name: Job(some, settings[name]) for name in ("warm", "late")})
    assert len(reads) - before == pictures[0] and len(part_files(tmp_path / "late")) == 2
    with pytest.raises(ValueError, match="same pairs"):
        collect_together(lvlm, {tmp_path / "a": Job(some, FEW), tmp_path / "b": Job(some[:3], FEW)})


def test_answers_are_kept_with_an_entropy_for_each_token(lvlm, store):
    answers = read_responses(store)
    assert len(answers) == 3 * COUNT and {a["response"] for a in answers} == {0, 1, 2}
    for answer in answers[:9]:
        ids = lvlm.tokenizer(answer["text"], add_special_tokens=False)["input_ids"]
        assert len(answer["token_entropy"]) == len(ids) and min(answer["token_entropy"]) >= 0
        assert len(answer["token_logprob"]) == len(ids) and max(answer["token_logprob"]) <= 0


def test_the_manifest_says_what_made_it(store):
    manifest = read_manifest(store)
    assert manifest["model"]["model"] == "tiny-internvl" and len(manifest["model"]["weights"]) == 16
    assert "{object_name}" in manifest["prompt"] and manifest["dtype"] == "float32"
    assert (manifest["seed"], manifest["temperature"], manifest["samples"]) == (0, 1.0, 3)
    assert {"torch", "transformers"} <= set(manifest["versions"])


def test_a_lost_part_is_made_again_the_same(lvlm, pairs, store):
    before = read_store(store)
    maps = before.maps[np.arange(len(before.iou))]
    part_files(store)[1].rename(store / "aside")
    report = collect(lvlm, pairs, store, FEW)
    after = read_store(store)
    assert (report.collected, report.resumed) == (PAIRS_PER_PART, COUNT - PAIRS_PER_PART)
    np.testing.assert_array_equal(before.box, after.box)
    np.testing.assert_allclose(maps, after.maps[np.arange(len(after.iou))], atol=0.02)


def test_a_killed_run_goes_on_with_nothing_twice_and_nothing_lost(lvlm, pairs, store, tmp_path):
    """The killed process collects the same pairs into a new folder and dies by SIGKILL after its first part."""
    root = pairs[0].file.parent.parent
    code = (
        "import sys; sys.path[:0] = sys.argv[3:]; from test_collect import FEW, COUNT; from pathlib import Path; "
        "from acs_core.artifacts.registry import resolve_model; from acs_core.lvlm import load_lvlm; "
        "from training.collection.collect import collect; from training.data.pairs import load_pairs; "
        "collect(load_lvlm(resolve_model('tiny-internvl'), device='cpu'), "
        "load_pairs(Path(sys.argv[1]))[:COUNT], Path(sys.argv[2]), FEW)"
    )
    folder = tmp_path / "store"
    here = Path(__file__).parent
    arguments = [str(root / "instances.json"), str(folder), str(here), str(here.parents[1] / "helpers")]
    run = subprocess.Popen([sys.executable, "-c", code, *arguments])
    try:
        while not part_files(folder):
            assert run.poll() is None, "the run ended before it was killed"
            time.sleep(0.02)
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    (folder / "part_00001.partial-7").mkdir()  # as if it had died while it wrote
    there = len(part_files(folder))
    report = collect(lvlm, pairs, folder, FEW)
    assert report.resumed == min(COUNT, there * PAIRS_PER_PART) and report.collected == COUNT - report.resumed
    unbroken, resumed = read_store(store), read_store(folder)
    for name in ("pairs", "pair", "response", "order", "box", "iou"):
        np.testing.assert_array_equal(getattr(unbroken, name), getattr(resumed, name))
    assert [a["text"] for a in read_responses(folder)] == [a["text"] for a in read_responses(store)]
    assert not list(folder.glob("*.partial*"))


def test_other_settings_do_not_mix(lvlm, pairs, store):
    with pytest.raises(DataError, match="samples"):
        collect(lvlm, pairs, store, replace(FEW, samples=4))


def test_unreadable_pictures_are_skipped_named_and_remembered(lvlm, pairs, tmp_path):
    broken = replace(pairs[0], image_id=99, file=tmp_path / "none.png")
    tiny = replace(pairs[0], image_id=98, file=tmp_path / "tiny.png")
    cv2.imwrite(str(tiny.file), np.zeros((1, 1, 3), np.uint8))
    for resumed in (0, 3):
        report = collect(lvlm, [broken, tiny, pairs[0]], tmp_path / "store", FEW)
        assert report.resumed == resumed and report.collected == 1 - bool(resumed)
        assert "none.png" in report.skipped[0] and report.skipped[0].startswith("99:")
    assert set(read_skipped(tmp_path / "store")) >= {0}


def test_the_wrong_picture_folder_is_noticed_early(lvlm, pairs, tmp_path):
    gone = [replace(p, file=tmp_path / "gone.png") for p in pairs]
    with pytest.raises(DataError, match="first 20 pictures could be used: is the picture folder the right one"):
        collect(lvlm, gone, tmp_path / "store", FEW)
    assert read_skipped(tmp_path / "store") == {}  # nothing is remembered of pictures that lie elsewhere


def test_other_pairs_are_told_by_their_number(lvlm, pairs, tmp_path):
    collect(lvlm, pairs[:2], tmp_path / "store", FEW)
    with pytest.raises(DataError, match=r"collection of 2 pairs, and other 3 are to be asked now .*: choose another"):
        collect(lvlm, pairs[:3], tmp_path / "store", FEW)


def test_parts_may_be_made_elsewhere_and_arrive_in_any_order(lvlm, pairs, store, tmp_path):
    def elsewhere(job: Job, todo, take):
        for number in reversed(todo):
            take(number, make_part(lvlm, job, number))

    seen = []
    report = collect(lvlm, pairs[:12], tmp_path / "store", FEW, lambda done, total: seen.append(done), run=elsewhere)
    assert report.collected == 12 and seen == [0, 2, 12]
    one, other = read_store(tmp_path / "store"), read_store(store)
    np.testing.assert_array_equal(one.box, other.box[other.pair < 12])


def test_other_weights_under_the_same_name_do_not_mix(lvlm, pairs, store, monkeypatch):
    monkeypatch.setattr("training.collection.collect.weights_fingerprint", lambda _: "other")
    with pytest.raises(DataError, match="other"):
        collect(lvlm, pairs, store, FEW)

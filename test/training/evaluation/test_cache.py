import errno
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from acs_core.artifacts.calibration import Calibration
from acs_core.artifacts.heads import Head, HeadFile
from acs_core.evaluation.records import Evaluation, Group, Prediction, Question, Run
from acs_core.geometry import Box
from acs_core.selection.registry import AcsFree, AcsLearned, MajorityVote
from acs_core.selection.regressor import AttentionIoURegressor
from acs_core.selection.scorer import Scorer
from training.collection.job import CollectConfig, Job
from training.collection.manifest import fingerprint, read_manifest
from training.collection.store import open_store, part_folder
from training.data.pairs import Pair
from training.errors import DataError
from training.evaluation.cache import CollectionCache, Place, answers_name, collection_name, keep_runs, kept_runs

MANIFEST = {
    "model": {"model": "some/tiny model", "weights": "abc"},
    "data": "test/instances.json",
    "kinds": ["several small"] * 2,
    "pairs": ["1:key", "2:key"],
    "temperature": 0.5,
    "samples": 10,
    "greedy": False,
    "versions": {"torch": "1"},
}


@pytest.mark.parametrize(
    ("changes", "begins"),
    [
        ({}, "tiny-model-test-several-small-t0.5-n10-"),
        ({"temperature": 1.0, "samples": 30}, "tiny-model-test-several-small-t1-n30-"),
        ({"greedy": True}, "tiny-model-test-several-small-greedy-"),
        ({"kinds": ["small"], "data": ""}, "tiny-model-small-t0.5-n10-"),
    ],
)
def test_a_collection_is_named_after_what_it_holds(changes, begins):
    manifest = {**MANIFEST, **changes}
    assert collection_name(manifest) == begins + fingerprint(manifest)


def test_only_what_must_be_shared_counts(tmp_path):
    name = fingerprint(MANIFEST)
    open_store(tmp_path, {**MANIFEST, "versions": {"torch": "2"}})
    assert len(name) == 12
    assert fingerprint(read_manifest(tmp_path)) == name
    assert fingerprint({**MANIFEST, "pairs": ["1:key"]}) != name != fingerprint({**MANIFEST, "seed": 1})


def test_a_collection_of_other_pictures_is_refused(tmp_path):
    """Pictures that were replaced in place: one file's digest has changed; unknown digests count as the same."""
    job = Job(tuple(Pair(i, tmp_path, "key", ()) for i in range(2)), CollectConfig())
    digests = (["a", "b"], ["a", "b"], ["", "b"], ["a", "c"])
    before, same, unknown, after = ({**MANIFEST, "pictures": pictures} for pictures in digests)
    folder = tmp_path / collection_name(before)
    open_store(folder, before)
    part_folder(folder, 0).mkdir()
    for manifest in (same, unknown, MANIFEST):
        open_store(folder, manifest)
        assert CollectionCache(tmp_path).place(manifest, job) == Place(folder, True)
    for check in (lambda: open_store(folder, after), lambda: CollectionCache(tmp_path).place(after, job)):
        with pytest.raises(DataError, match="collected from other pictures: 1 of 2 pairs have changed files"):
            check()


def test_a_complete_collection_from_elsewhere_is_read_in_place(tmp_path):
    job = Job(tuple(Pair(i, tmp_path, "key", ()) for i in range(12)), CollectConfig())
    own = Place(tmp_path / "own" / collection_name(MANIFEST), False)
    other = tmp_path / "other" / "whatever"
    open_store(other, MANIFEST)
    (tmp_path / "other" / "junk").mkdir()
    (tmp_path / "other" / "junk" / "manifest.json").write_text("{")

    def place(manifest=MANIFEST):
        return CollectionCache(tmp_path / "own", [tmp_path / "other"]).place(manifest, job)

    assert place() == own  # begun there, but not complete
    part_folder(other, 0).mkdir()
    assert place() == own
    part_folder(other, 1).mkdir()
    assert place() == Place(other, True, ours=False)
    assert place({**MANIFEST, "seed": 1}).folder.parent == tmp_path / "own"
    for number in (0, 1):
        part_folder(own.folder, number).mkdir(parents=True)
    assert place() == replace(own, complete=True)
    with pytest.raises(DataError, match="no folder with collections"):
        CollectionCache(tmp_path / "own", [tmp_path / "none"])


def scorers(identity, seed=0):
    torch.manual_seed(seed)
    heads = HeadFile(identity, "heads", ((Head(1, 0),),) * 4)
    return [
        Scorer(AcsLearned(AttentionIoURegressor(3, 2), (4, 4)), None),
        Scorer(AcsFree(heads), None),
        Scorer(MajorityVote(), None),
    ]


def test_runs_are_named_after_all_that_they_follow_from(identity):
    name = answers_name("a", *scorers(identity))
    assert answers_name("a", *scorers(identity)) == name
    assert answers_name("b", *scorers(identity)) != name
    assert answers_name("a", *scorers(identity, seed=1)) != name
    assert answers_name("a", *scorers(identity)[:2]) != name
    curve = Calibration(identity, "acs-free", "attention_concentration", (0.0, 1.0), (0.25, 0.75))
    learned, free, vote = scorers(identity)
    calibrated = answers_name("a", learned, replace(free, calibration=curve), vote)
    twice = answers_name("a", learned, replace(free, second_look=replace(curve, second_look=True)), vote)
    assert len({name, calibrated, twice}) == 3


def test_the_name_is_the_same_in_another_process():
    code = (
        "import torch; torch.manual_seed(0)\n"
        "from acs_core.selection.scorer import Scorer; from acs_core.selection.registry import AcsLearned\n"
        "from acs_core.selection.regressor import AttentionIoURegressor; from training.evaluation.cache import "
        "answers_name\n"
        "name = answers_name(1.5, Scorer(AcsLearned(AttentionIoURegressor(2, 2), (4, 4)), None))"
    )
    here: dict[str, str] = {}
    exec(code, here)
    there = subprocess.run([sys.executable, "-c", code + "\nprint(name)"], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here["name"] and len(here["name"]) == 16


def an_evaluation(reason="nothing"):
    question = Question("1:key", "key", "key", "1.jpg", (8, 6), (Box(1, 2, 3, 4),))
    run = Run("acs-free", 0.5, 10, (Prediction(reason=reason),))
    return Evaluation("small", (Group("small", "single", (question,), (run,)),))


def test_kept_runs_come_back(tmp_path):
    file = tmp_path / "abc.json.gz"
    assert kept_runs(file) is None
    assert keep_runs(an_evaluation(), file) == kept_runs(file)
    assert kept_runs(file).groups == an_evaluation().groups


def test_kept_runs_that_were_changed_are_made_again(tmp_path):
    file = tmp_path / "abc.json.gz"
    told = keep_runs(an_evaluation(), file)
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        found = kept_runs(file)
        assert found in (None, told), "it is read otherwise"
    for length in range(0, len(whole), 7):
        file.write_bytes(whole[:length])
        assert kept_runs(file) is None
    assert keep_runs(an_evaluation(), file) == told and file.read_bytes() == whole


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.EACCES])
def test_a_read_error_that_may_pass_loses_no_kept_runs(tmp_path, monkeypatch, number):
    file = tmp_path / "abc.json.gz"
    told = keep_runs(an_evaluation(), file)

    def fail(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr("acs_core.artifacts.json_io.os.open", fail)
        with pytest.raises(OSError, match=os.strerror(number)) as refused:
            kept_runs(file)
    assert refused.value.filename == str(file)
    assert kept_runs(file) == told


def test_an_unreadable_manifest_is_not_taken_for_another_collection(tmp_path, monkeypatch):
    open_store(tmp_path / "store", MANIFEST)

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("acs_core.artifacts.json_io.os.open", fail)
    with pytest.raises(OSError, match=r"manifest\.json"):
        CollectionCache(tmp_path / "own", [tmp_path])


def test_runs_of_another_name_or_none_are_made_again(tmp_path):
    keep_runs(an_evaluation("other"), tmp_path / "other.json.gz")
    (tmp_path / "other.json.gz").rename(tmp_path / "abc.json.gz")
    assert kept_runs(tmp_path / "abc.json.gz") is None
    keep_runs(replace(an_evaluation(), groups=()), tmp_path / "abc.json.gz")
    assert kept_runs(tmp_path / "abc.json.gz") is None

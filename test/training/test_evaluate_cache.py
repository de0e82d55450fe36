import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from acs_core.calibration import Calibration
from acs_core.heads import Head, HeadFile
from acs_core.judging import Judge
from acs_core.regressor import AttentionIoURegressor
from acs_core.selection import AcsFree, AcsLearned, MajorityVote
from training.collect_job import CollectConfig, Job
from training.errors import DataError
from training.evaluate_cache import Place, Shelf, answers_name, collection_name
from training.manifest import fingerprint
from training.pairs import Pair
from training.store import open_store, part_folder

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
    assert fingerprint(json.loads((tmp_path / "manifest.json").read_text())) == name
    assert fingerprint({**MANIFEST, "pairs": ["1:key"]}) != name != fingerprint({**MANIFEST, "seed": 1})


def test_a_complete_collection_from_elsewhere_is_read_in_place(tmp_path):
    job = Job(tuple(Pair(i, tmp_path, "key", ()) for i in range(12)), CollectConfig())
    own = Place(tmp_path / "own" / collection_name(MANIFEST), False)
    other = tmp_path / "other" / "whatever"
    open_store(other, MANIFEST)
    (tmp_path / "other" / "junk").mkdir()
    (tmp_path / "other" / "junk" / "manifest.json").write_text("{")

    def place(manifest=MANIFEST):
        return Shelf(tmp_path / "own", [tmp_path / "other"]).place(manifest, job)

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
        Shelf(tmp_path / "own", [tmp_path / "none"])


def judges(identity, seed=0):
    torch.manual_seed(seed)
    heads = HeadFile(identity, "heads", ((Head(1, 0),),) * 4)
    return [
        Judge(AcsLearned(AttentionIoURegressor(3, 2), (4, 4)), None),
        Judge(AcsFree(heads), None),
        Judge(MajorityVote(), None),
    ]


def test_runs_are_named_after_all_that_they_follow_from(identity):
    name = answers_name("a", *judges(identity))
    assert answers_name("a", *judges(identity)) == name
    assert answers_name("b", *judges(identity)) != name
    assert answers_name("a", *judges(identity, seed=1)) != name
    assert answers_name("a", *judges(identity)[:2]) != name
    curve = Calibration(identity, "acs-free", "attention_concentration", (0.0, 1.0), (0.25, 0.75))
    learned, free, vote = judges(identity)
    calibrated = answers_name("a", learned, replace(free, calibration=curve), vote)
    twice = answers_name("a", learned, replace(free, second_look=replace(curve, second_look=True)), vote)
    assert len({name, calibrated, twice}) == 3


def test_the_name_is_the_same_in_another_process():
    code = (
        "import torch; torch.manual_seed(0)\n"
        "from acs_core.judging import Judge; from acs_core.selection import AcsLearned\n"
        "from acs_core.regressor import AttentionIoURegressor; from training.evaluate_cache import answers_name\n"
        "name = answers_name(1.5, Judge(AcsLearned(AttentionIoURegressor(2, 2), (4, 4)), None))"
    )
    here: dict[str, str] = {}
    exec(code, here)
    there = subprocess.run([sys.executable, "-c", code + "\nprint(name)"], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here["name"] and len(here["name"]) == 16

"""Files that would run a command if they were unpickled: each reader refuses them by name, and nothing runs."""

import hashlib
import io
import json
import pickle
import random
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from acs_core.artifacts.calibration import Calibration
from acs_core.artifacts.heads import HeadFile
from acs_core.errors import AcsError
from acs_core.evaluation.storage import load as load_evaluation
from acs_core.selection.box_regressor import load_box_regressor
from acs_core.selection.joint_model import load_joint
from acs_core.selection.regressor import load_regressor
from training.checkpoint_file import MAGIC, read_state, write_state
from training.collection.manifest import fingerprint, read_manifest
from training.collection.part_digests import DIGESTS, write_digests
from training.collection.store import part_folder, read_responses, read_skipped, read_store
from training.data.coco import read_coco
from training.errors import DataError
from training.fitting.artifacts import held_candidates
from training.fitting.fit import fit
from training.settings import FitConfig
from training.tiny.train import read_checkpoint

ONE = FitConfig(epochs=1)


class Harm:
    """Makes ``file`` when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.fixture
def ran(tmp_path):
    """The file that is there once something ran."""
    return tmp_path / "it ran"


def test_the_harm_is_real(ran):
    pickle.loads(pickle.dumps(Harm(ran))).close()
    assert ran.exists()


def plain_pickle(harm):
    return pickle.dumps(harm)


def old_checkpoint(harm):
    """As torch.save and the trainer wrote it, without a digest."""
    written = io.BytesIO()
    torch.save({"state_dict": {}, "run": {}, "loops": harm}, written)
    return written.getvalue()


def sealed_checkpoint(harm):
    """With the digest that its content has."""
    content = old_checkpoint(harm)
    return MAGIC + hashlib.sha256(content).digest() + content


def sealed_pickle(harm):
    content = pickle.dumps({"loops": harm})
    return MAGIC + hashlib.sha256(content).digest() + content


FORMS = [plain_pickle, old_checkpoint, sealed_checkpoint, sealed_pickle]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "read",
    [
        read_state,
        load_regressor,
        load_box_regressor,
        load_joint,
        HeadFile.load,
        Calibration.load,
        load_evaluation,
        read_coco,
        lambda file: read_checkpoint(file, {}, {"model": nn.Linear(1, 1)}, "cpu"),
        lambda file: read_manifest(file.parent),
    ],
)
def test_no_reader_runs_what_it_reads(tmp_path, ran, form, read):
    file = tmp_path / "manifest.json"
    file.write_bytes(form(Harm(ran)))
    with pytest.raises(AcsError, match=r"manifest\.json"):
        read(file)
    assert not ran.exists()


@pytest.mark.parametrize("form", FORMS)
def test_the_steps_files_do_not_run(tmp_path, ran, form, collection):
    (tmp_path / "fit.json").write_bytes(form(Harm(ran)))
    with pytest.raises(DataError, match=r"fit\.json"):
        held_candidates(tmp_path, collection)
    assert not ran.exists()


@pytest.mark.parametrize("seed", range(30))
def test_a_changed_list_of_held_out_images_is_noticed(tmp_path, files, collection, seed):
    out, fitted = files
    whole, rng = (out / "fit.json").read_bytes(), random.Random(seed)
    digits, content = [i for i, byte in enumerate(whole) if chr(byte).isdigit()], bytearray(whole)
    while json.loads(content) == json.loads(whole):  # the last of many digits may make no difference to a float
        content, at = bytearray(whole), rng.choice(digits)
        content[at] = ord("1") if content[at] == ord("0") else content[at] - 1
    (tmp_path / "fit.json").write_bytes(content)
    assert len(held_candidates(out, collection)) == len(fitted.validation)
    with pytest.raises(DataError, match=r"fit\.json is missing or damaged"):
        held_candidates(tmp_path, collection)


@pytest.mark.parametrize("digests", ["old", "new"])
@pytest.mark.parametrize("name", ["zarr.json", "rows/zarr.json", "rows/c/0/0", "answers.json", DIGESTS])
def test_no_file_of_a_store_runs(tmp_path, ran, collection_folder, name, digests):
    folder = tmp_path / "store"
    shutil.copytree(collection_folder, folder)
    part = part_folder(folder, 1)
    (part / name).write_bytes(pickle.dumps(Harm(ran)))
    if digests == "new" and name != DIGESTS:
        (part / DIGESTS).unlink()
        write_digests(part, 1, fingerprint(read_manifest(folder)))
    with pytest.raises(DataError, match="part_00001"):
        read_store(folder), read_responses(folder), read_skipped(folder)
    assert not ran.exists()


@pytest.fixture(scope="module")
def work(collection, tmp_path_factory):
    folder = tmp_path_factory.mktemp("work") / "fit"
    fit(collection, ONE, folder)
    return folder


@pytest.fixture
def copied(work, tmp_path):
    return shutil.copytree(work, tmp_path / "fit")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt", "fit.json"])
def test_no_file_of_a_fits_work_folder_runs(collection, copied, ran, form, name):
    (copied / name).write_bytes(form(Harm(ran)))
    with pytest.raises(DataError, match=f"{name} .*: delete .*, fitting then starts anew"):
        fit(collection, ONE, copied)
    assert not ran.exists()
    for deleted in ("fit.json",) if name == "fit.json" else ("last.ckpt", "best.ckpt"):
        (copied / deleted).unlink()
    assert fit(collection, ONE, copied).epochs == 1, "what the message says helps"


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt", "fit.json"])
@pytest.mark.parametrize("seed", range(4))
def test_damage_in_a_fits_work_folder_is_noticed(collection, copied, name, seed):
    rng, file = random.Random(f"{name}-{seed}"), copied / name
    content = bytearray(file.read_bytes())
    if seed == 3:
        content = content[: rng.randrange(len(content))]
    else:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    with pytest.raises(DataError, match=f"{name} is "):
        fit(collection, ONE, copied)


def test_a_missing_checkpoint_of_the_best_epoch_is_named(collection, copied):
    (copied / "best.ckpt").unlink()
    with pytest.raises(DataError, match=r"best\.ckpt is missing"):
        fit(collection, ONE, copied)


@pytest.mark.parametrize(
    "changes",
    [
        {"state_dict": 5},
        {"state_dict": {}},
        {"optimizer_states": []},
        {"loops": {}},
        {"loops": 5},
        {"callbacks": {"_Notes": {"rows": 5}}},
        {"callbacks": 5},
        {"lr_schedulers": 5},
        {"pytorch-lightning_version": 5},
    ],
)
def test_a_checkpoint_of_numbers_that_is_no_checkpoint_is_refused(collection, copied, changes):
    file = copied / "last.ckpt"
    write_state(file, read_state(file) | changes)
    with pytest.raises(DataError, match=r"last\.ckpt"):
        fit(collection, ONE, copied)


def test_a_state_comes_back(tmp_path):
    given = {"weights": torch.arange(6.0).reshape(2, 3), "step": 3, "names": ["a", "b"], "none": None, "rate": 0.1}
    write_state(tmp_path / "a.ckpt", given)
    found = read_state(tmp_path / "a.ckpt")
    assert set(found) == set(given) and torch.equal(found.pop("weights"), given.pop("weights")) and found == given
    assert [f.name for f in tmp_path.iterdir()] == ["a.ckpt"]


def test_every_flipped_byte_of_a_checkpoint_is_noticed(tmp_path):
    file = tmp_path / "a.ckpt"
    write_state(file, {"weights": torch.arange(3.0)})
    whole = file.read_bytes()
    for at in np.linspace(0, len(whole) - 1, 300, dtype=int):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(DataError, match=r"a\.ckpt"):
            read_state(file)


@pytest.mark.parametrize("numbers", [{"step": "three"}, {"step": -1}, {"seconds": float("nan")}, {"step": None}])
def test_a_tiny_checkpoint_whose_numbers_are_none_is_refused(tmp_path, numbers):
    write_state(tmp_path / "last.pt", {"run": {"a": 1}, **numbers})
    with pytest.raises(DataError, match=r"last\.pt does not belong"):
        read_checkpoint(tmp_path / "last.pt", {"a": 1}, {}, "cpu")

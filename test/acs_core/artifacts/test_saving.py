"""Every file made for an LVLM is written whole or not at all, with the permissions that the user's umask gives."""

import errno
import os

import numpy as np
import pytest

from acs_core.artifacts.calibration import Calibration
from acs_core.artifacts.heads import Head, HeadFile
from acs_core.artifacts.identity import ModelIdentity
from acs_core.artifacts.trees import Trees
from acs_core.selection.box_regressor import BoxRegressor, load_box_regressor, save_box_regressor
from acs_core.selection.joint_features import feature_names
from acs_core.selection.joint_model import JointIoUModel, load_joint, save_joint
from acs_core.selection.regressor import AttentionIoURegressor, load_regressor, save_regressor

IDENTITY = ModelIdentity("made-up", "internvl", 2, 3)


def regressor(path):
    save_regressor(path, AttentionIoURegressor(2, 3), IDENTITY, (4, 4))


def box_regressor(path):
    save_box_regressor(path, BoxRegressor(2, 3), IDENTITY, (4, 4))


def joint(path):
    leaf = np.zeros((1, 1), np.int32)
    trees = Trees(
        leaf, leaf.astype(float), np.zeros((1, 1, 2), np.int32), leaf.astype(float), 0.5, len(feature_names(2))
    )
    save_joint(path, JointIoUModel(trees, IDENTITY, (4, 4)))


def heads(path):
    HeadFile(IDENTITY, "heads", ((Head(1, 0),),) * 4).save(path)


def calibration(path):
    Calibration(IDENTITY, "acs-free", "attention_concentration", (0.0, 1.0), (0.25, 0.75)).save(path)


KINDS = [
    (regressor, load_regressor),
    (box_regressor, load_box_regressor),
    (joint, load_joint),
    (heads, HeadFile.load),
    (calibration, Calibration.load),
]


@pytest.mark.parametrize(("save", "load"), KINDS)
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_the_umask_decides_who_may_read(tmp_path, save, load, mask, mode):
    before = os.umask(mask)
    try:
        save(tmp_path / "file")
    finally:
        os.umask(before)
    load(tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("save", [save for save, _ in KINDS])
def test_a_full_disk_is_an_error_of_the_system_that_names_the_file(tmp_path, save):
    full = tmp_path / "full"
    full.symlink_to("/dev/full")  # a writer that renames over its target would replace the device itself
    with pytest.raises(OSError, match="No space left on device") as refused:
        save(full)
    assert refused.value.errno == errno.ENOSPC and refused.value.filename == str(full)


@pytest.mark.parametrize("save", [save for save, _ in KINDS])
def test_what_was_there_stays_until_the_new_file_is_whole(tmp_path, monkeypatch, save):
    (tmp_path / "file").write_text("old")
    monkeypatch.setattr("acs_core.output.os.fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"):
        save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "old" and len(list(tmp_path.iterdir())) == 1

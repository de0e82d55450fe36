import shutil
from dataclasses import replace

import numpy as np
import pytest

from acs_core.heads import Head, HeadFile
from training.errors import DataError
from training.made_files import (
    FIT,
    HEADS,
    JOINT,
    REGRESSOR,
    held_candidates,
    made_selectors,
    read_joint,
    read_regressor,
)


def test_the_held_out_images_are_found_again(collection, fresh_collection, files, tmp_path):
    out, fitted = files
    assert held_candidates(out, collection).tolist() == fitted.validation.tolist()
    with pytest.raises(DataError, match="acs-train fit"):
        held_candidates(tmp_path, collection)


def test_a_collection_of_another_model_is_refused(files, strange):
    for use in (
        lambda: read_regressor(files[0], strange),
        lambda: read_joint(files[0], strange),
        lambda: made_selectors(files[0], strange),
    ):
        with pytest.raises(DataError, match="both must be of one model"):
            use()


def test_what_is_there_is_found(collection, files, identity, tmp_path):
    out = shutil.copytree(files[0], tmp_path / "files")
    assert [s.name for s in made_selectors(out, collection)] == ["acs-learned", "acs-joint"]
    (out / REGRESSOR).unlink()
    HeadFile(identity, "heads", ((Head(1, 0),),) * 4).save(out / HEADS)
    assert [s.name for s in made_selectors(out, collection)] == ["acs-free", "acs-fusion", "acs-joint"]
    (out / JOINT).unlink()
    assert [s.name for s in made_selectors(out, collection)] == ["acs-free", "acs-fusion"]


@pytest.mark.parametrize("use", [read_regressor, read_joint, made_selectors])
def test_maps_of_another_size_are_refused(collection, files, use):
    small = replace(collection, maps=np.zeros((1, 4, 3, 2, 2, 2)))
    with pytest.raises(DataError, match=r"maps are 2 x 2, .* reads 4 x 4: collect with --map-side 4"):
        use(files[0], small)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"held_images": '])
def test_a_damaged_account_of_the_fit_is_said(collection, tmp_path, text):
    (tmp_path / FIT).write_text(text)
    with pytest.raises(DataError, match="is missing or damaged"):
        held_candidates(tmp_path, collection)


def test_the_account_of_another_fit_is_said(collection, tmp_path):
    (tmp_path / FIT).write_text('{"held_images": [1000000]}')
    with pytest.raises(DataError, match="belongs to another collection"):
        held_candidates(tmp_path, collection)


def test_nothing_to_calibrate_is_said(collection, tmp_path):
    with pytest.raises(DataError, match="run `acs-train fit`"):
        made_selectors(tmp_path, collection)

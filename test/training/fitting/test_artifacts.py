import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from acs_core.artifacts.heads import Head, HeadFile
from acs_core.artifacts.sealed import seal
from acs_core.errors import OutputError
from acs_core.selection.joint_model import JOINT_MODEL
from training.errors import DataError
from training.fitting.artifacts import (
    BOX,
    FIT,
    HEADS,
    JOINT,
    REGRESSOR,
    card_name,
    files_folder,
    held_candidates,
    made_selectors,
    read_artifact,
    read_regressor,
)


def joint_of(out, data):
    return read_artifact(out, JOINT_MODEL, data)


def test_the_held_out_images_are_found_again(collection, fresh_collection, files, tmp_path):
    out, fitted = files
    assert held_candidates(out, collection).tolist() == fitted.validation.tolist()
    with pytest.raises(DataError, match="acs-train fit"):
        held_candidates(tmp_path, collection)


def test_a_collection_of_another_model_is_refused(files, strange):
    for use in (
        lambda: read_regressor(files[0], strange),
        lambda: joint_of(files[0], strange),
        lambda: made_selectors(files[0], strange),
    ):
        with pytest.raises(DataError, match="both must be of one model"):
            use()


def test_what_is_there_is_found(collection, files, identity, tmp_path):
    out = shutil.copytree(files[0], tmp_path / "files")
    agreeing = ["consensus", "medoid", "largest-cluster"]  # without files
    learned = ["acs-learned", "acs-joint", "acs-learned-box"]
    assert [s.name for s in made_selectors(out, collection)] == [*learned, *agreeing]
    (out / REGRESSOR).unlink()
    HeadFile(identity, "heads", ((Head(1, 0),),) * 4).save(out / HEADS)
    made = ["acs-free", "acs-fusion", *learned[1:]]
    assert [s.name for s in made_selectors(out, collection)] == [*made, *agreeing]
    (out / JOINT).unlink()
    (out / BOX).unlink()
    assert [s.name for s in made_selectors(out, collection)] == ["acs-free", "acs-fusion", *agreeing]


@pytest.mark.parametrize("use", [read_regressor, joint_of, made_selectors])
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
    (tmp_path / FIT).write_text(json.dumps(seal({"held_images": [1000000]})))
    with pytest.raises(DataError, match="belongs to another collection"):
        held_candidates(tmp_path, collection)


def test_nothing_to_calibrate_is_said(collection, tmp_path):
    with pytest.raises(DataError, match="run `acs-train fit`"):
        made_selectors(tmp_path, collection)


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ('{"model_type": "internvl"}', True),
        ('{"debug": true}', False),
        ('{"model_type": 5}', False),
        ("[]", False),
        ("{", False),
        ("", False),
    ],
)
def test_only_a_folder_that_holds_a_model_is_added_to(tmp_path, text, taken):
    (tmp_path / "config.json").write_text(text)
    if taken:
        with files_folder(tmp_path, "acs-train fit", ()) as folder:
            assert folder.may_write(HEADS)
    else:
        with pytest.raises(OutputError, match="is not empty, and acs did not make it"):
            files_folder(tmp_path, "acs-train fit", ()).__enter__()
        assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


def test_a_model_card_never_takes_the_place_of_the_users(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "internvl"}')
    with files_folder(tmp_path, "acs-train build", ()) as folder:
        assert card_name(folder) == "README.md"
        (tmp_path / "README.md").write_text("mine")
        assert card_name(folder) == "README-acs.md"
        (tmp_path / "README-acs.md").write_text("mine too")
        with pytest.raises(OutputError, match=r"README\.md and README-acs\.md, neither as acs wrote it"):
            card_name(folder)

from dataclasses import dataclass

import numpy as np
import pytest

from acs_core.artifacts.heads import Head, HeadFile
from acs_core.artifacts.identity import ModelIdentity
from acs_core.artifacts.registry import ASSETS
from acs_core.artifacts.trees import Trees
from acs_core.errors import AcsError, ArtifactError, HeadFileError, JointError, RegressorError, SelectorError
from acs_core.selection.attention_in_box import BoxLayers
from acs_core.selection.box_regressor import BoxRegressor, save_box_regressor
from acs_core.selection.defaults import scorer_for
from acs_core.selection.joint_features import feature_names
from acs_core.selection.joint_model import JointIoUModel, save_joint
from acs_core.selection.registry import (
    AcsFree,
    AcsFusion,
    AcsJoint,
    AcsLearned,
    AcsLearnedBox,
    AttentionInBox,
    BoxFusingSelector,
    Consensus,
    FirstResponse,
    GridVote,
    LargestCluster,
    MajorityVote,
    MeanBox,
    MedianVote,
    Medoid,
    SmallestBox,
    TokenUncertainty,
    VerbalConfidence,
    default_selector,
    fuses_boxes,
    make_selector,
    selector_names,
    spec_of,
)
from acs_core.selection.regressor import AttentionIoURegressor, save_regressor


@dataclass
class SelectableModel:
    name: str = "some/model"
    family: str = "internvl"
    num_layers: int = 2
    num_heads: int = 3
    hidden_size: int | None = None
    revision: str | None = None
    device: str = "cpu"


IDENTITY = ModelIdentity("some/model", "internvl", 2, 3)
HEADS = HeadFile(IDENTITY, "heads", ((Head(1, 2),),) * 4)


@pytest.fixture
def regressor(tmp_path):
    save_regressor(tmp_path / "r.safetensors", AttentionIoURegressor(2, 3), IDENTITY, (6, 5))
    return tmp_path / "r.safetensors"


@pytest.fixture
def joint(tmp_path):
    leaf = Trees(
        np.zeros((1, 1), np.int32),
        np.zeros((1, 1)),
        np.zeros((1, 1, 2), np.int32),
        np.zeros((1, 1)),
        0.5,
        len(feature_names(2)),
    )
    save_joint(tmp_path / "joint.safetensors", JointIoUModel(leaf, IDENTITY, (6, 5)))
    return tmp_path / "joint.safetensors"


@pytest.fixture
def box_layers(tmp_path):
    BoxLayers(IDENTITY, (1,), (6, 5)).save(tmp_path / "box-layers.json")
    return tmp_path / "box-layers.json"


@pytest.fixture
def box_regressor(tmp_path):
    save_box_regressor(tmp_path / "b.safetensors", BoxRegressor(2, 3), IDENTITY, (6, 5))
    return tmp_path / "b.safetensors"


@pytest.fixture
def files(regressor, joint, box_layers, box_regressor):
    """A file of each kind, by its keyword."""
    read = {"regressor": regressor, "joint_model": joint, "box_layers": box_layers, "box_regressor": box_regressor}
    return {"heads": HEADS, **read}


@pytest.mark.parametrize(
    ("name", "kind", "greedy"),
    [
        ("acs-free", AcsFree, False),
        ("acs-learned", AcsLearned, False),
        ("acs-fusion", AcsFusion, False),
        ("acs-joint", AcsJoint, False),
        ("attention-in-box", AttentionInBox, False),
        ("acs-learned-box", AcsLearnedBox, False),
        ("greedy", FirstResponse, True),
        ("pass-at-1", FirstResponse, False),
        ("first-valid", FirstResponse, False),
        ("token-entropy", TokenUncertainty, False),
        ("coordinate-logprob", TokenUncertainty, False),
        ("sequence-logprob", TokenUncertainty, False),
        ("mean-token-logprob", TokenUncertainty, False),
        ("majority-vote", MajorityVote, False),
        ("majority-vote-median", MedianVote, False),
        ("grid-vote", GridVote, False),
        ("medoid", Medoid, False),
        ("consensus", Consensus, False),
        ("largest-cluster", LargestCluster, False),
        ("mean-box", MeanBox, False),
        ("smallest", SmallestBox, False),
        ("verbal-confidence", VerbalConfidence, False),
    ],
)
def test_every_name_makes_its_selector(name, kind, greedy, files):
    assert name in selector_names()
    selector = make_selector(name, SelectableModel(), **files)
    assert isinstance(selector, kind)
    assert (selector.name, selector.greedy_decoding) == (name, greedy)
    assert isinstance(selector, BoxFusingSelector) == fuses_boxes(name)


def test_files_are_read(tmp_path, regressor):
    HEADS.save(tmp_path / "heads.json")
    selector = make_selector("acs-free", SelectableModel(), heads=str(tmp_path / "heads.json"))
    assert selector.needs.heads == (((1, 2),),) * 4
    assert make_selector("acs-learned", SelectableModel(), regressor=str(regressor)).needs.map_size == (6, 5)


def test_the_file_of_one_learned_selector_is_not_that_of_the_other(regressor, joint):
    with pytest.raises(RegressorError, match="no acs_joint metadata"):
        make_selector("acs-joint", SelectableModel(), joint_model=regressor)
    with pytest.raises(RegressorError, match="no acs_regressor metadata"):
        make_selector("acs-learned", SelectableModel(), regressor=joint)


def test_the_joint_model_is_no_longer_named_as_the_regressor(regressor, joint):
    with pytest.raises(JointError, match=r"acs-joint takes its file as joint_model=\.\.\. .*--joint-model FILE"):
        make_selector("acs-joint", SelectableModel(), regressor=joint)
    # A file that the selector does not read is no mistake, as the node keeps one for each.
    assert make_selector("acs-joint", SelectableModel(), regressor=regressor, joint_model=joint).name == "acs-joint"
    with pytest.raises(
        TypeError, match=r"reads a file of the kind 'joint': use heads, regressor, box_layers, joint_model"
    ):
        make_selector("acs-joint", SelectableModel(), joint=joint)


def test_every_spec_agrees_with_its_selector(files):
    for name in selector_names():
        selector = make_selector(name, SelectableModel(), **files)
        assert selector.name == spec_of(name).name == name
        assert bool(selector.feature) or not spec_of(name).reads, "what a file gives can be calibrated"


def test_defaults_come_from_the_models_folder(tmp_path, files):
    folder = tmp_path / "model"
    folder.mkdir()
    HEADS.save(folder / "heads.json")
    of_maps = ("acs-learned", "acs-joint", "attention-in-box", "acs-learned-box")
    for name in of_maps:
        (kind,) = spec_of(name).reads
        files[kind.name].rename(folder / kind.file_name)
    model = SelectableModel(name=str(folder))
    assert make_selector("acs-free", model).needs.heads == (((1, 2),),) * 4
    for name in of_maps:
        assert make_selector(name, model).needs.map_size == (6, 5)


def test_a_large_model_uses_the_shipped_layers():
    selector = make_selector("acs-free", SelectableModel("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", 28, 28, 3584))
    assert selector.needs.heads == HeadFile.load(ASSETS / "qwen2.5-vl-7b" / "heads.json").pairs()


@pytest.mark.parametrize(
    ("model", "shipped"),
    [
        (SelectableModel("OpenGVLab/InternVL3_5-8B-Instruct-HF", "internvl", 36, 32, 4096), "internvl3.5-8b"),
        (SelectableModel("someone/qwen-finetuned", "qwen2_5_vl", 28, 28, 3584), "qwen2.5-vl-7b"),
    ],
)
def test_so_does_a_renamed_or_finetuned_one(caplog, model, shipped):
    selector = make_selector("acs-free", model)
    assert selector.needs.heads == HeadFile.load(ASSETS / shipped / "heads.json").pairs()
    assert f"is used with {model.name}" in caplog.text


def test_chosen_heads_stay_with_their_model():
    with pytest.raises(HeadFileError, match="made for some/model, the model is some/other"):
        make_selector("acs-free", SelectableModel("some/other"), heads=HEADS)


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        (
            "acs-free",
            HeadFileError,
            r"no head file is known for the model some/model: build one with `acs-train build`",
        ),
        ("acs-learned", RegressorError, r"no regressor is known for the model some/model"),
        (
            "acs-joint",
            JointError,
            r"no joint model is known for the model some/model.*; the default selector .*, consensus, works ",
        ),
        ("attention-in-box", ArtifactError, r"no box layers are known for the model some/model: find them with "),
        ("acs-learned-box", RegressorError, r"no box regressor is known for the model some/model: fit one with "),
        (
            "ACS",
            SelectorError,
            r"unknown selector 'ACS': choose one of acs-free, acs-learned, acs-fusion, acs-fusion-box, acs-joint",
        ),
    ],
)
def test_what_is_missing_is_said(name, error, says):
    with pytest.raises(error, match=says) as caught:
        make_selector(name, SelectableModel())
    assert isinstance(caught.value, AcsError)


def test_files_of_another_model_are_refused(regressor, box_layers, box_regressor):
    other = SelectableModel("some/other", num_layers=5)
    with pytest.raises(HeadFileError, match="has 5 x 3"):
        make_selector("acs-free", other, heads=HEADS)
    with pytest.raises(RegressorError, match="has 5 x 3"):
        make_selector("acs-learned", other, regressor=regressor)
    with pytest.raises(ArtifactError, match="has 5 x 3"):
        make_selector("attention-in-box", other, box_layers=box_layers)
    with pytest.raises(RegressorError, match="has 5 x 3"):
        make_selector("acs-learned-box", other, box_regressor=box_regressor)


@pytest.mark.parametrize(
    ("at_hand", "given", "name"),
    [
        ((), (), "consensus"),
        (("heads",), (), "acs-free"),
        (("box_layers",), (), "acs-fusion-box"),
        (("heads", "box_layers"), (), "acs-fusion-box"),
        (("heads", "box_layers"), ("heads",), "acs-free"),  # what the user gave is read
        (("heads", "box_layers"), ("box_layers",), "acs-fusion-box"),
        (("heads",), ("heads",), "acs-free"),
        (("regressor",), ("regressor",), "consensus"),
    ],
)
def test_auto_is_the_first_selector_whose_files_are_at_hand(files, at_hand, given, name):
    assert default_selector(SelectableModel(), {kind: files[kind] for kind in at_hand}, given) == name


def test_a_head_file_of_the_users_own_is_read_beside_built_files(tmp_path, files):
    HEADS.save(tmp_path / "heads.json")
    BoxLayers(IDENTITY, (1,), (6, 5)).save(tmp_path / "box-layers.json")
    assert scorer_for(SelectableModel(), "auto", built=tmp_path).selector.name == "acs-fusion-box"
    mine = scorer_for(SelectableModel(), "auto", built=tmp_path, heads=HEADS)
    assert mine.selector.name == "acs-free" and mine.selector.heads is HEADS

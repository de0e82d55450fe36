import numpy as np
import pytest
from tensor_parts import IDENTITY, NAMES, FakeModel, rewrite, step_quality

from acs_core.artifacts.trees import Trees
from acs_core.attention import AttentionRecord
from acs_core.errors import JointError, NonFiniteError
from acs_core.geometry import Box
from acs_core.selection.joint_model import JointIoUModel, load_joint, save_joint
from acs_core.types import Candidate


def call(count=3):
    boxes = [Box(10, 10, 20, 20), Box(10, 10, 20, 20), Box(50, 50, 60, 60)][:count]
    maps = np.random.default_rng(0).random((count, 4, 2, 3, 8, 6), np.float32)
    record = AttentionRecord(np.ones((count, 4, 2, 3), np.float32), maps, (8, 6), num_responses=3)
    return [Candidate(b, "", i, 0, (0, 1, 2, 3)) for i, b in enumerate(boxes)], record, (80, 60)


@pytest.fixture
def path(tmp_path):
    save_joint(tmp_path / "joint.safetensors", step_quality())
    return tmp_path / "joint.safetensors"


def test_predictions_follow_the_trees_and_stay_in_range():
    assert step_quality().predict(*call()) == pytest.approx([0.9, 0.9, 0.0])  # 0.3 - 0.5 is no IoU
    assert step_quality(high=5.0).predict(*call()) == pytest.approx([1.0, 1.0, 0.0])


def test_no_candidate_no_prediction():
    assert step_quality().predict([], call()[1], (80, 60)).shape == (0,)


def test_evidence_of_another_kind_is_said():
    candidates, record, size = call()
    bare = AttentionRecord(record.entropy, None, (8, 6))
    with pytest.raises(JointError, match="needs attention maps"):
        step_quality().predict(candidates, bare, size)
    other = AttentionRecord(record.entropy, record.maps[:, :, :, :2], (8, 6))
    with pytest.raises(JointError, match="2 layers x 3 heads, got 2 x 2"):
        step_quality().predict(candidates, other, size)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["maps", "entropy"])
def test_attention_that_is_no_number_gives_no_prediction(part, value):
    """It would send the walk through the trees to some leaf."""
    candidates, record, size = call()
    getattr(record, part)[1, 2, 1, 0] = value
    with np.errstate(invalid="ignore"), pytest.raises(NonFiniteError, match="acs-joint got NaN or infinite attention"):
        step_quality().predict(candidates, record, size)


def test_trees_of_other_features_are_refused():
    with pytest.raises(ValueError, match="read 5 features"):
        JointIoUModel(Trees(*leaf_of(5)), IDENTITY, (8, 6))


def leaf_of(width):
    return np.zeros((1, 1), np.int32), np.zeros((1, 1)), np.zeros((1, 1, 2), np.int32), np.zeros((1, 1)), 0.5, width


def test_round_trip(path):
    loaded, saved = load_joint(path, FakeModel()), step_quality()
    assert (loaded.identity, loaded.map_size, loaded.made_by) == (IDENTITY, (8, 6), "by a test")
    assert np.array_equal(loaded.predict(*call()), saved.predict(*call()))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_layers": 3}, '"features"'),
        ({"features": "0123456789ab"}, "fitted to other features than this version"),
        ({"features": None}, "fitted to other features than this version"),
    ],
)
def test_wrong_metadata_is_named(path, change, says):
    rewrite(path, change)
    with pytest.raises(JointError, match=says) as caught:
        load_joint(path)
    assert str(path) in str(caught.value)


def setting(name, place, value):
    def edit(arrays):
        arrays[name][place] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda a: a.pop("child"), "the array child is missing"),
        (lambda a: a.update(more=np.zeros(1)), "unknown array 'more'"),
        (lambda a: a.update({"k" * 10**5: np.zeros(1)}), "unknown array 'kkk"),
        (lambda a: a.update(value=a["value"].astype(np.float32)), "value is of type F32, not F64"),
        (lambda a: a.update(base=np.zeros(2)), r"base has shape \(2,\)"),
        (lambda a: a.update(feature=np.zeros((0, 3), np.int32)), "feature has shape"),
        (setting("child", (0, 0, 0), 0), "child points back"),
        (setting("child", (0, 0, 0), 3), "out of its tree"),
        (setting("feature", (0, 0), len(NAMES)), "feature holds numbers outside"),
        (setting("value", (0, 1), np.nan), "value holds values that are not finite"),
        (setting("threshold", (0, 0), np.inf), "threshold holds values that are not finite"),
        (setting("base", 0, np.inf), "base holds values that are not finite"),
        (setting("value", (0, 1), 1.7e308), "value holds values above"),
        (setting("threshold", (0, 0), -1.7e308), "threshold holds values above"),
        (setting("base", 0, 1.7e308), "base holds values above"),
        (setting("value", (0, 1), 11.0), "predict no IoU: their base is 0.3, their largest leaf 11"),
        (setting("value", (0, 2), -1e6), "predict no IoU"),
        (setting("base", 0, 10.5), "predict no IoU: their base is 10.5"),
        (setting("base", 0, 3.0), r"predict from 2.5 to 3.6, never an IoU, which lies in \[0, 1\]"),
        (setting("base", 0, -2.0), "predict from -2.5 to -1.4, never an IoU"),
    ],
)
def test_wrong_arrays_are_named(path, edit, says):
    rewrite(path, edit=edit)
    with pytest.raises(JointError, match=says) as caught:
        load_joint(path)
    assert len(str(caught.value)) < 1000

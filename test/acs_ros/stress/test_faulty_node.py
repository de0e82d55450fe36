"""Each fault in a real call of the embedded model: what comes of it, and that the next call is as if nothing was."""

import numpy as np
import pytest

from acs_core.errors import AcsError
from acs_core.grounder import Grounder
from acs_core.image import read_image
from acs_core.types import SamplingConfig
from acs_ros.stress import faulty_node
from acs_ros.stress.faulty_node import FAULTS, FaultBox, FaultyGrounder

SAMPLING = SamplingConfig(num_samples=4, temperature=0.5, max_new_tokens=48, seed=3)


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    return Grounder.from_pretrained("tiny-internvl", selector="acs-free", device="cpu")


@pytest.fixture(scope="module")
def image(repo) -> np.ndarray:
    return read_image(repo / "docs" / "sample.png")


@pytest.fixture
def box(tmp_path) -> FaultBox:
    return FaultBox(tmp_path)


def ask(broken: FaultyGrounder, image: np.ndarray):
    (result,) = broken.ground_many(image, ["key"], sampling=SAMPLING)
    return result


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_answered_or_told_and_the_next_call_is_clean(grounder, image, box, fault, monkeypatch):
    monkeypatch.setattr(faulty_node, "SLOW_S", 0.01)
    broken = FaultyGrounder(grounder, box)
    before = ask(broken, image)
    assert before.detections

    box.put(fault)
    assert box.waits
    if fault == "out of memory, always":
        with pytest.raises(AcsError, match="has no room"):
            ask(broken, image)
    elif fault == "error":
        with pytest.raises(RuntimeError, match="injected"):
            ask(broken, image)
    else:
        answer = ask(broken, image)
        if fault == "out of memory, once":
            assert "memory" in " ".join(answer.skipped)
            assert len(answer.responses) == SAMPLING.num_samples // 2
        elif fault == "hang":
            assert answer.candidates == before.candidates
        else:
            assert not answer.detections
            assert answer.reason
            assert ("the model gave NaN or infinite logits" in answer.reason) == (fault == "NaN logits")
    assert not box.waits

    after = ask(broken, image)
    assert (after.candidates, after.detections, after.skipped) == (before.candidates, before.detections, ())


def test_a_fault_reaches_what_the_model_has_answered_before(grounder, image, box):
    broken = FaultyGrounder(grounder, box)
    for _ in range(2):  # the second is drafted, and takes one forward pass
        assert not broken.ground_many(image, ["elephant"])[0].detections
    box.put("error")
    with pytest.raises(RuntimeError, match="injected"):
        broken.ground_many(image, ["elephant"])


def test_a_fault_comes_once(box):
    box.put("hang")
    assert [box.take(), box.take()] == ["hang", ""]


def test_an_unknown_fault_is_named(box):
    with pytest.raises(ValueError, match="no fault 'flood'"):
        box.put("flood")

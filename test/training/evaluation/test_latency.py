import pytest
from tiny_parts import some_pairs

from acs_core.grounder import Grounder
from acs_core.types import SamplingConfig
from training.evaluation.latency import answer_ms


class Counting:
    """A Grounder that notes what it is asked."""

    def __init__(self):
        self.asked = []

    def ground(self, image, phrase, *, sampling):
        self.asked.append((image.shape, phrase, sampling))


def test_every_pair_is_timed_once_and_the_first_warms_up(tmp_path):
    pairs, sampling, grounder = some_pairs(tmp_path, "test", 6)[:3], SamplingConfig(seed=4), Counting()
    times = answer_ms(grounder, pairs, sampling)
    assert len(times) == 3 and all(t > 0 for t in times)
    assert [phrase for _, phrase, _ in grounder.asked] == [p.category for p in (pairs[0], *pairs)]
    assert {s for *_, s in grounder.asked} == {sampling}


@pytest.mark.parametrize("selector", ["majority-vote", "token-entropy"])
def test_a_real_answer_is_timed(tmp_path, selector):
    grounder = Grounder.from_pretrained("tiny-internvl", selector=selector, device="cpu")
    (time,) = answer_ms(grounder, some_pairs(tmp_path, "test", 4)[:1], SamplingConfig(num_samples=2, seed=0))
    assert time > 0

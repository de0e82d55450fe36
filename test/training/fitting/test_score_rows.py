"""Features of a score at run time, and those that a calibration is fitted to."""

import numpy as np
import pytest

from acs_core import Grounder, SamplingConfig
from acs_core.selection.evidence import Evidence, evidence_rows
from acs_core.selection.scorer import Scorer
from training.collection.collect import collect
from training.collection.offline_selection import calls
from training.collection.store import read_responses, read_store
from training.data.coco import read_coco
from training.data.pairs import choose_pairs
from training.fitting.score_rows import names_for, score_rows
from training.settings import CollectConfig
from training.world.synth import write_coco

pytestmark = pytest.mark.long

# So hot that some responses go on after the first box.
SAMPLING = SamplingConfig(num_samples=4, temperature=1.5, top_p=1.0, seed=11)


@pytest.fixture(scope="module")
def grounder():
    return Grounder.from_pretrained("tiny-qwen2.5-vl", selector="attention-in-box", device="cpu")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    file = write_coco(tmp_path_factory.mktemp("world") / "test", "test", 6)
    return choose_pairs(read_coco(file), ("small", "medium", "large"), "any")[:4]


def online(monkeypatch, grounder, pair, names):
    """Features of the published box of a grounding call, and the hidden state at the end of the prompt."""
    found = []
    decide = Scorer.decide

    def watched(self, candidates, responses, record, image_size, **options):
        decision = decide(self, candidates, responses, record, image_size, **options)
        confidence = self.selector.confidences(candidates, record, image_size, decision.qualities)
        best = decision.detections[0].candidate
        row = evidence_rows(names, Evidence(candidates, record, image_size, confidence))[best]
        found.append((row, record.hidden))
        return decision

    monkeypatch.setattr(Scorer, "decide", watched)
    grounder.ground(pair.read(), pair.category, sampling=SAMPLING)
    monkeypatch.undo()
    ((row, hidden),) = found
    return row, hidden


def test_a_calibration_is_fitted_to_the_features_of_a_call(monkeypatch, grounder, pairs, tmp_path):
    selector = grounder.selector
    config = CollectConfig(
        SAMPLING.num_samples,
        SAMPLING.temperature,
        SAMPLING.top_p,
        seed=SAMPLING.seed,
        map_size=selector.needs.map_size,
    )
    went_on = 0
    for k, pair in enumerate(pairs):
        collect(grounder.lvlm, [pair], tmp_path / str(k), config)
        data, answers = read_store(tmp_path / str(k)), read_responses(tmp_path / str(k))
        names = names_for(selector, tokens=True)
        rows = score_rows(selector, calls(data, True, answers), data, names, counts=())
        (whole,) = calls(data, True, answers)
        went_on += len(whole.candidates) > len(whole.seen_by(selector).candidates)
        expected, hidden = online(monkeypatch, grounder, pair, names)
        # stored maps and log-probabilities are rounded
        np.testing.assert_allclose(rows.features[0], expected, rtol=0.01, atol=0.01, err_msg=pair.key)
        np.testing.assert_allclose(whole.record.hidden, hidden, rtol=0.001, atol=0.001)
    assert went_on, "no response holds a second box: nothing was shown"

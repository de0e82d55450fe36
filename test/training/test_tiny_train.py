import json

import pytest
import torch
from transformers import AutoModelForImageTextToText

from training.tiny.evaluate import greedy_accuracy, small_cases
from training.tiny.model import TinyConfig
from training.tiny.train import TinyTrainer, TrainConfig

SIZE = TinyConfig(image_size=112, vision_width=32, vision_layers=1, width=32, layers=1, heads=1, key_value_heads=1)
SHORT = TrainConfig(
    pictures=24,
    validation_pictures=60,
    validation_cases=6,
    steps=(2, 2, 2),
    batch=(4, 4, 4),
    questions=2,
    checkpoint_every=1,
    evaluate_every=100,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    trainer = TinyTrainer(folder, SHORT, SIZE)
    trainer.run()
    return trainer


def test_a_run_goes_through_all_phases_and_saves_a_loadable_model(finished):
    assert finished.step == 6
    model = AutoModelForImageTextToText.from_pretrained(finished.folder / "tiny-internvl", dtype="float32")
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(model.state_dict()[name], finished.model.state_dict()[name], atol=1e-3, rtol=1e-3)
    lines = [json.loads(line) for line in (finished.folder / "log.jsonl").read_text().splitlines()]
    assert any("acc" in line for line in lines)


def test_a_stopped_run_ends_like_an_unbroken_one(finished, tmp_path):
    class Stopped(Exception):
        pass

    class Stopping(TinyTrainer):
        def _checkpoint(self):
            super()._checkpoint()
            if self.step == 3:
                raise Stopped

    with pytest.raises(Stopped):
        Stopping(tmp_path, SHORT, SIZE).run()
    again = TinyTrainer(tmp_path, SHORT, SIZE)
    again.run()
    for name, value in again.model.state_dict().items():
        torch.testing.assert_close(value, finished.model.state_dict()[name], atol=2e-3, rtol=0.02, msg=name)


def test_small_cases_are_small_and_alone(finished):
    cases = list(small_cases(finished.val, limit=20))
    assert len(cases) == 20
    for i, o in cases:
        assert 0.001 <= o.box.area / 112**2 <= 0.01
        assert sum(other.name == o.name for other in finished.val.objects[i]) == 1


def test_accuracy_is_reported_for_every_case(finished):
    found = greedy_accuracy(finished.model.eval(), finished.processor, finished.val, limit=10)
    assert found["cases"] == 10 and 0 <= found["acc"] <= 1 and 0 <= found["no_box"] <= 1

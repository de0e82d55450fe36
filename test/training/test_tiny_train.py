import json

import pytest
import torch
from tiny_parts import ARCHES, small_arch
from transformers import AutoModelForImageTextToText

from training.errors import DataError
from training.tiny.train import TinyTrainer, TrainConfig

SHORT = TrainConfig(
    steps=(2, 2, 2),
    batch=(2, 2, 2),
    kept_pictures=10,
    questions=2,
    validation_pictures=12,
    validation_cases=4,
    checkpoint_every=1,
    evaluate_every=100,
)


def trainer_in(folder, name, trainer=TinyTrainer):
    # positions for 360 pixels a side, whatever the sizes of the layers
    return trainer(folder, SHORT, small_arch(name, image_size=360))


@pytest.fixture(scope="module", params=ARCHES)
def finished(request, tmp_path_factory):
    trainer = trainer_in(tmp_path_factory.mktemp(request.param), request.param)
    trainer.run()
    return trainer


def test_a_run_goes_through_all_phases_and_saves_a_loadable_model(finished):
    assert finished.step == 6
    model = AutoModelForImageTextToText.from_pretrained(finished.model_folder, dtype="float32")
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    trained = finished.lessons.model.state_dict()[name]
    torch.testing.assert_close(model.state_dict()[name], trained, atol=1e-3, rtol=1e-3)


def test_the_log_holds_accuracy_and_a_picture_lies_beside_it(finished):
    lines = [json.loads(line) for line in (finished.folder / "log.jsonl").read_text().splitlines()]
    (accuracy,) = [line for line in lines if "acc" in line]
    assert accuracy["step"] == 6 and accuracy["cases"] == 4 and 0 <= accuracy["refused"] <= 1
    assert sum(line["kept"] for line in lines if "kept" in line) == 10
    assert (finished.folder / "validation-000006.png").exists()


def test_a_stopped_run_ends_like_an_unbroken_one(finished, tmp_path):
    class Stopped(Exception):
        pass

    class Stopping(TinyTrainer):
        def _checkpoint(self):
            super()._checkpoint()
            if self.step == 3:
                raise Stopped

    with pytest.raises(Stopped):
        trainer_in(tmp_path, finished.arch.name, Stopping).run()
    again = trainer_in(tmp_path, finished.arch.name)
    again.run()
    for name, value in again.lessons.model.state_dict().items():
        torch.testing.assert_close(value, finished.lessons.model.state_dict()[name], atol=2e-3, rtol=0.02, msg=name)


def test_where_positions_are_in_the_language_model_its_first_layers_learn_with_the_teacher(finished):
    """Phase A moves exactly the layers that the teacher reads through."""
    fresh = small_arch(finished.arch.name, image_size=360)
    torch.manual_seed(SHORT.seed)
    before = fresh.build_model(fresh.build_processor(finished.lessons.names)).state_dict()
    state = {}

    class OnlyA(TinyTrainer):
        def _checkpoint(self):
            state.update({k: v.clone() for k, v in self.lessons.model.state_dict().items()})
            raise StopIteration

    trainer = OnlyA(finished.folder / "again", SHORT, fresh)
    with pytest.raises(StopIteration):
        trainer.run()
    moved = {
        layer
        for layer in range(fresh.size.layers)
        for key in [f"model.language_model.layers.{layer}.self_attn.q_proj.weight"]
        if not torch.equal(state[key], before[key])
    }
    assert moved == set(range(fresh.teacher_layers))


def test_a_trial_run_is_shorter():
    short = TrainConfig().shortened(0.01)
    assert short.steps == tuple(max(1, round(s * 0.01)) for s in TrainConfig().steps) and short.kept_pictures == 80


def test_a_folder_of_the_other_architecture_is_not_taken_over(finished):
    other = next(name for name in ARCHES if name != finished.arch.name)
    with pytest.raises(DataError, match=f"holds a run of {finished.arch.name}: choose another folder for {other}"):
        trainer_in(finished.folder, other).run()

import json
from dataclasses import replace

import pytest
import torch
from tiny_parts import ARCHES, small_arch
from transformers import AutoModelForImageTextToText

from training.errors import DataError
from training.tiny.recipe import TrainConfig
from training.tiny.train import TinyTrainer

SHORT = TrainConfig(
    steps=(3, 3, 2),
    rates=(3.0, 3.0, 3.0),  # of which the warm-up leaves a hundredth: enough to see that something was learnt
    guided_steps=5,
    batch=(2, 2, 3),
    pictures=(10, 10, 8),
    objects=((3, 5), (3, 5), (3, 5)),
    questions=(0, 2, 2),
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


def weights(trainer):
    return {k: v.clone() for k, v in trainer.lessons.model.state_dict().items()}


def test_a_run_goes_through_all_phases_and_saves_what_it_learnt(finished):
    assert finished.step == 8
    loaded = AutoModelForImageTextToText.from_pretrained(finished.model_folder, dtype="float32").state_dict()
    torch.manual_seed(SHORT.seed)
    fresh = finished.arch.build_model(finished.arch.build_processor(finished.lessons.names)).state_dict()
    for name, value in weights(finished).items():
        torch.testing.assert_close(loaded[name], value, atol=2e-3, rtol=2e-3)
    for part in ("language_model.layers.0.mlp.up_proj.weight", "lm_head.weight"):
        (name,) = [n for n in fresh if n.endswith(part)]
        assert (loaded[name] - fresh[name]).abs().max() > 0.01


def test_the_log_holds_accuracy_and_a_picture_lies_beside_it(finished):
    lines = [json.loads(line) for line in (finished.folder / "log.jsonl").read_text().splitlines()]
    (accuracy,) = [line for line in lines if "acc" in line]
    assert accuracy["step"] == 8 and accuracy["cases"] == 4 and 0 <= accuracy["refused"] <= 1
    assert sum(line["kept"] for line in lines if "kept" in line) == 10 + 8
    assert (finished.folder / "validation-000008.png").exists()


@pytest.mark.parametrize("stop", [1, 3, 5, 6, 7])
def test_a_stopped_run_ends_like_an_unbroken_one(finished, tmp_path, stop):
    class Stopped(Exception):
        pass

    class Stopping(TinyTrainer):
        def _checkpoint(self):
            super()._checkpoint()
            if self.step == stop:
                raise Stopped

    with pytest.raises(Stopped):
        trainer_in(tmp_path, finished.arch.name, Stopping).run()
    again = trainer_in(tmp_path, finished.arch.name)
    again.run()
    for name, value in weights(again).items():
        torch.testing.assert_close(value, weights(finished)[name], atol=1e-5, rtol=1e-4, msg=name)


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
    short = TrainConfig((800, 30, 300)).shortened(0.01)
    assert short.steps == (8, 1, 3) and short.pictures == (240, 240, 64)
    assert (short.warm_up_steps, short.guided_steps) == (2, 15)


@pytest.mark.parametrize(("guided_steps", "guided"), [(1, "---G----"), (5, "---GGG--")])
def test_guide_and_teacher_help_in_their_steps_only(tmp_path, guided_steps, guided):
    seen = []

    class Watching(TinyTrainer):
        def _after_step(self, phase, losses):
            seen.append(("guide" in losses, "class" in losses))
            super()._after_step(phase, losses)

    arch = small_arch("qwen2_5_vl", image_size=360)  # whose teacher reads in phase B too
    Watching(tmp_path, replace(SHORT, guided_steps=guided_steps), arch).run()
    assert "".join("G" if g else "-" for g, _ in seen) == guided
    assert [taught for _, taught in seen] == [True] * 6 + [False] * 2


def test_the_last_phase_begins_with_an_optimiser_that_knows_nothing(tmp_path):
    updates = []

    class Watching(TinyTrainer):
        def _after_step(self, phase, losses):
            updates.append(max(int(state["step"]) for state in self.optimiser.state.values()))
            super()._after_step(phase, losses)

    trainer_in(tmp_path, "internvl", Watching).run()
    assert updates == [1, 2, 3, 4, 5, 6, 1, 2]


def test_workers_change_nothing(finished, tmp_path):
    """Nor does a folder of pictures that another run has filled."""
    arch = small_arch(finished.arch.name, image_size=360)
    trainer = TinyTrainer(tmp_path, SHORT, arch, pictures=finished.folder / "pictures", workers=2)
    trainer.run()
    assert not (tmp_path / "pictures").exists()
    for name, value in weights(trainer).items():
        torch.testing.assert_close(value, weights(finished)[name], atol=1e-5, rtol=1e-4, msg=name)


def test_a_folder_of_another_run_is_not_taken_over(finished):
    other = next(name for name in ARCHES if name != finished.arch.name)
    with pytest.raises(DataError, match=f"holds a run with arch {finished.arch.name}, not {other}: choose another"):
        trainer_in(finished.folder, other).run()
    longer = TinyTrainer(finished.folder, replace(SHORT, steps=(3, 3, 3)), finished.arch)
    with pytest.raises(DataError, match=r"steps \(3, 3, 2\), not \(3, 3, 3\)"):
        longer.run()


def test_a_damaged_checkpoint_is_named(finished, tmp_path):
    (tmp_path / "last.pt").write_bytes((finished.folder / "last.pt").read_bytes()[:1000])
    with pytest.raises(DataError, match=r"last\.pt is damaged .*: delete it"):
        trainer_in(tmp_path, finished.arch.name).run()

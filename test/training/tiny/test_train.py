import ctypes
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from tiny_parts import ARCHES, small_arch
from transformers import AutoModelForImageTextToText

from acs_core.output_folder import OutputFolder
from training.errors import DataError
from training.tiny.mistakes import Mistakes
from training.tiny.recipe import PhaseConfig, TrainConfig, standard_phases
from training.tiny.train import TinyTrainer

pytestmark = pytest.mark.long

# The warm-up leaves a hundredth of the rate: enough to see that something was learnt.
A = PhaseConfig("A", 3, 3.0, batch=2, pictures=10, objects=(3, 5), questions=0)
B = PhaseConfig("B", 3, 3.0, 2, 10, (3, 5), questions=2, absent_share=0.3, dense_weight=0.3, guided_steps=5)
C = PhaseConfig("C", 2, 3.0, 3, 8, (3, 5), questions=2, absent_share=0.5, new_optimiser=True)
SHORT = TrainConfig(
    (A, B, C),
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
    return {k: v.clone() for k, v in trainer.losses.model.state_dict().items()}


def test_a_run_goes_through_all_phases_and_saves_what_it_learnt(finished):
    assert finished.step == 8
    loaded = AutoModelForImageTextToText.from_pretrained(finished.model_folder, dtype="float32").state_dict()
    torch.manual_seed(SHORT.seed)
    fresh = finished.arch.build_model(finished.arch.build_processor(finished.losses.names)).state_dict()
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
    class TrainingStopped(Exception):
        pass

    class Stopping(TinyTrainer):
        def _checkpoint(self):
            super()._checkpoint()
            if self.step == stop:
                raise TrainingStopped

    with pytest.raises(TrainingStopped):
        trainer_in(tmp_path, finished.arch.name, Stopping).run()
    again = trainer_in(tmp_path, finished.arch.name)
    again.run()
    for name, value in weights(again).items():
        torch.testing.assert_close(value, weights(finished)[name], atol=1e-5, rtol=1e-4, msg=name)


def test_where_positions_are_in_the_language_model_its_first_layers_learn_with_the_teacher(finished):
    """Phase A moves exactly the layers that the teacher reads through."""
    fresh = small_arch(finished.arch.name, image_size=360)
    torch.manual_seed(SHORT.seed)
    before = fresh.build_model(fresh.build_processor(finished.losses.names)).state_dict()
    state = {}

    class OnlyA(TinyTrainer):
        def _checkpoint(self):
            state.update({k: v.clone() for k, v in self.losses.model.state_dict().items()})
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
    short = TrainConfig(standard_phases((800, 30, 300, 0, 200))).shortened(0.01)
    assert [phase.steps for phase in short.phases] == [8, 1, 3, 0, 2] and short.steps == 14
    assert [phase.pictures for phase in short.phases] == [240, 240, 64, 240, 240]
    assert short.warm_up_steps == 2 and [phase.guided_steps for phase in short.phases] == [0, 15, 0, 10**7, 10**7]


def test_a_run_begins_at_the_phase_that_is_named():
    config = TrainConfig(standard_phases((1, 2, 3, 4, 5)))
    assert [phase.steps for phase in config.starting_at("D").phases] == [4, 5]
    with pytest.raises(ValueError, match=r"no phase 'F': choose one of A, B, C, D, E"):
        config.starting_at("F")


def test_the_length_of_a_phase_can_be_given():
    config = TrainConfig(standard_phases((1, 2, 3, 0, 0)))
    assert [phase.steps for phase in config.with_steps({"D": 7, "A": 0}).phases] == [0, 2, 3, 7, 0]
    with pytest.raises(ValueError, match="no phase 'F'"):
        config.with_steps({"F": 1})
    with pytest.raises(ValueError, match="the phases D, E have no steps: give some, such as E=400"):
        config.starting_at("D").with_steps({})


def test_the_last_phases_start_from_a_model_and_train_all_of_it_or_its_language_half(finished, tmp_path):
    """D moves the vision part, E only the language model; a stopped run resumes with its own weights."""
    more = {"questions": 2, "guided_steps": 9, "all_coordinates": True, "new_optimiser": True}
    end_to_end = PhaseConfig("D", 1, 3.0, 2, 8, (3, 5), end_to_end=True, **more)
    erring = PhaseConfig("E", 2, 3.0, 2, 8, (3, 5), mistakes=Mistakes(1.0, 1.0, 1.0), **more)
    states = []

    class KeepsStates(TinyTrainer):
        def _after_step(self, phase, done, losses):
            assert "guide" in losses
            states.append(weights(self))
            super()._after_step(phase, done, losses)

    def run(phases):
        config = replace(SHORT, phases=phases)
        arch = small_arch(finished.arch.name, image_size=360)
        trainer = KeepsStates(tmp_path / "run", config, arch, base=finished.model_folder)
        trainer.run()
        return trainer

    run((end_to_end, erring))
    base = AutoModelForImageTextToText.from_pretrained(finished.model_folder, dtype="float32").state_dict()

    def moved(before, after):
        return {"vision" if "vision" in k or "visual" in k else "language" for k in after if not same(before, after, k)}

    def same(before, after, name):
        return torch.equal(before[name], after[name])

    assert moved(base, states[0]) == {"vision", "language"}
    assert moved(states[0], states[2]) == {"language"}
    fresh = replace(SHORT, phases=(end_to_end, erring))
    with pytest.raises(DataError, match="holds a run with base"):
        TinyTrainer(tmp_path / "run", fresh, small_arch(finished.arch.name, image_size=360)).run()


def test_a_folder_without_a_model_is_no_start(finished, tmp_path):
    with pytest.raises(DataError, match="is no model to start from"):
        TinyTrainer(tmp_path / "run", SHORT, small_arch(finished.arch.name, image_size=360), base=tmp_path).run()


@pytest.mark.parametrize(("guided_steps", "guided"), [(1, "---G----"), (5, "---GGG--")])
def test_guide_and_teacher_help_in_their_steps_only(tmp_path, guided_steps, guided):
    seen = []

    class NotesLosses(TinyTrainer):
        def _after_step(self, phase, done, losses):
            seen.append(("guide" in losses, "class" in losses))
            super()._after_step(phase, done, losses)

    arch = small_arch("qwen2_5_vl", image_size=360)  # whose teacher reads in phase B too
    phases = (A, replace(B, guided_steps=guided_steps), C)
    NotesLosses(tmp_path, replace(SHORT, phases=phases), arch).run()
    assert "".join("G" if g else "-" for g, _ in seen) == guided
    assert [taught for _, taught in seen] == [True] * 6 + [False] * 2


def test_the_last_phase_begins_with_an_optimiser_that_knows_nothing(tmp_path):
    updates = []

    class NotesUpdates(TinyTrainer):
        def _after_step(self, phase, done, losses):
            updates.append(max(int(state["step"]) for state in self.optimiser.state.values()))
            super()._after_step(phase, done, losses)

    trainer_in(tmp_path, "internvl", NotesUpdates).run()
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
    longer = TinyTrainer(finished.folder, replace(SHORT, phases=(A, B, replace(C, steps=3))), finished.arch)
    with pytest.raises(DataError, match="holds a run with phases"):
        longer.run()


def test_a_damaged_checkpoint_is_named(finished, tmp_path):
    with OutputFolder(tmp_path, "acs-train tiny"):
        (tmp_path / "last.pt").write_bytes((finished.folder / "last.pt").read_bytes()[:1000])
    with pytest.raises(DataError, match=r"last\.pt is damaged .*: delete it"):
        trainer_in(tmp_path, finished.arch.name).run()


FAULTS = """
import resource
from training.tiny.train import kept_heap

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        bytearray(64 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

resident = lambda: int(open("/proc/self/statm").read().split()[1])
faults()
plain, size = faults(), resident()
with kept_heap():
    faults()
    kept = faults()
print(plain, kept, faults(), resident() - size)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="a setting of glibc")
def test_a_kept_heap_takes_no_new_pages_for_what_was_freed_and_gives_them_back():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, timeout=300, check=True)
    plain, kept, afterwards, grown = map(int, done.stdout.split())  # in pages
    assert kept < 100 < plain and afterwards > 100
    assert grown < (32 << 20) // 4096

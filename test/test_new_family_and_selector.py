"""A new family, and new selectors with and without a file that training makes: each is one file and one line in a
registry, and every command and the node know it. What a registry does not reach fails here."""

import json

import made_up_family
import numpy as np
import pytest
from made_up_family import MadeUpFamily
from made_up_selectors import LARGEST_SPEC, PRIOR, PRIOR_SPEC, PRIOR_STEP
from typer.testing import CliRunner

from acs_core.artifacts.calibration import Calibration
from acs_core.bench import cli as bench_cli
from acs_core.errors import ArtifactError
from acs_core.evaluation.storage import load
from acs_core.lvlm import FAMILIES, load_lvlm
from acs_core.selection.registry import SELECTORS, artifact_kinds, make_selector, selector_names
from acs_ros.node.model_loader import load_grounder
from acs_ros.node.parameter_table import SPECS
from acs_ros.node.parameters import Settings
from training.cli import main
from training.collection.job import CollectConfig
from training.collection.store import read_store
from training.data.pairs import load_pairs
from training.fitting import build as build_module
from training.fitting.analyze import AnalysisConfig
from training.fitting.build import BuildConfig, build
from training.fitting.fit import FitConfig
from training.world.synth import write_coco

pytestmark = pytest.mark.long
NEW = (LARGEST_SPEC.name, PRIOR_SPEC.name)


@pytest.fixture(scope="module")
def registered():
    """One line in each registry."""
    with pytest.MonkeyPatch.context() as patch:
        made_up_family.make_known_to_transformers(patch)
        patch.setitem(FAMILIES, MadeUpFamily.name, MadeUpFamily())
        patch.setitem(SELECTORS, LARGEST_SPEC.name, LARGEST_SPEC)
        patch.setitem(SELECTORS, PRIOR_SPEC.name, PRIOR_SPEC)
        patch.setattr(build_module, "STEPS", (*build_module.STEPS, PRIOR_STEP))
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return made_up_family.save_model(tmp_path_factory.mktemp("made-up") / "made-up-model")


@pytest.fixture(scope="module")
def built(registered, model, tmp_path_factory):
    """The folder of a small build for the made-up family, and the folder of its collections."""
    folder = tmp_path_factory.mktemp("build")
    train, fresh = (
        load_pairs(write_coco(folder / split, split, count))[:count] for split, count in (("train", 36), ("val", 64))
    )
    config = BuildConfig(
        CollectConfig(samples=5, max_new_tokens=64),
        FitConfig(epochs=1),
        AnalysisConfig(min_group=1, heads=1, draws=5, low_iou=0.5, high_iou=0.6),
    )
    lvlm = load_lvlm(model, device="cpu")
    build(lvlm, train, fresh, folder / "work", folder / "files", "test", config, lambda text: None)
    return folder / "files", folder / "work"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("world") / "test", "test", 8)


def test_every_kind_of_file_is_made_by_one_step(registered):
    made = [kind for step in build_module.STEPS for kind in step.makes]
    assert sorted(kind.name for kind in made) == sorted(kind.name for kind in artifact_kinds())
    assert PRIOR in made and set(NEW) < set(selector_names())


def test_the_build_makes_and_calibrates_for_what_is_registered(built):
    out, work = built
    assert read_store(work / "train").maps.shape[-2:] == MadeUpFamily.map_size
    assert 0 < json.loads((out / PRIOR.file_name).read_text())["area"] < 1
    for name in ("acs-free", "acs-joint", *NEW):
        assert Calibration.load(out / f"calibration-{name}.json").identity.family == MadeUpFamily.name
        assert f"| {name} |" in (out / "README.md").read_text()


def test_the_evaluation_asks_what_is_registered(built, data, tmp_path):
    arguments = ["evaluate", "--model", str(built[0]), "--data", str(data), "--work", str(tmp_path / "work")]
    arguments += ["--small", "8", "--several", "0", "--large", "0", "--absent", "0", "--samples", "2", "--most", "2"]
    arguments += [
        "--device",
        "cpu",
        "--temperature",
        "0.5",
        "--second-look",
        PRIOR_SPEC.name,
        "--out",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(main.app, arguments)
    assert done.exit_code == 0, done.output
    (group,) = load(tmp_path / "out" / "evaluation.json.gz").groups
    kinds = {run.method: run.kind for run in group.runs}
    assert kinds.items() >= dict.fromkeys((*NEW, f"{PRIOR_SPEC.name} + second look"), "ours").items()
    assert set(NEW) <= {run.method for run in group.runs for answer in run.answers if answer.scores}


@pytest.mark.parametrize("selector", [*NEW, "acs-learned", "acs-joint"])
def test_the_node_loads_what_is_registered(built, data, selector):
    values = {spec.name: spec.default for spec in SPECS} | {"model": str(built[0]), "device": "cpu"}
    grounder = load_grounder(Settings(**values | {"selector": selector}))
    asked = (grounder.ground(pair.read(), pair.category, seed=1) for pair in load_pairs(data)[:8])
    result = next((result for result in asked if result.detections), None)  # the model refuses some questions
    assert result is not None and result.selector == grounder.selector_name == selector
    assert result.score_kind.is_probability and 0 <= result.detections[0].score <= 1


def test_the_benchmark_takes_a_model_of_the_family(registered, model):
    done = CliRunner().invoke(
        bench_cli.app, ["--shape", str(model), "--ways", "ae", "--samples", "2", "--new-tokens", "8", "--device", "cpu"]
    )
    assert done.exit_code == 0, done.output
    assert "ours, ACS-Learned, all maps" in done.output


def test_a_model_without_the_file_is_told_so(registered, model, built, tmp_path):
    lvlm = load_lvlm(model, device="cpu")
    with pytest.raises(ArtifactError, match=r"no prior is known for the model .*made-up-model"):
        make_selector(PRIOR_SPEC.name, lvlm)
    selector = make_selector(PRIOR_SPEC.name, lvlm, prior=built[0] / PRIOR.file_name)
    assert np.isfinite(selector.prior.area)

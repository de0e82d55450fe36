"""Nothing is judged on the images that it was calibrated on."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from eval_parts import evaluation

from acs_core.artifacts.calibration import Calibration, CalibrationImages
from acs_core.artifacts.identity import ModelIdentity
from acs_core.evaluation.records import CALIBRATED_ON
from acs_core.evaluation.tables import assess, tables_of
from training.data.coco import read_coco
from training.data.dataset import Problems
from training.data.pairs import choose_pairs
from training.data.pictures import fit_to_pictures
from training.errors import DataError
from training.evaluation.evaluate import choose_groups
from training.evaluation.used_images import UsedImages
from training.settings import EvaluateConfig
from training.world.synth import write_coco

CURVE = Calibration(ModelIdentity("tiny", "internvl", 4, 8), "acs-free", "concentration", (0.1, 0.9), (0.0, 0.8))
SOURCE = "test/instances.json"
CONFIG = EvaluateConfig({"small": 1000})


def scorer(images, second=None, name="acs-free"):
    curves = [None if i is None else replace(CURVE, images=i or None) for i in (images, second)]
    return SimpleNamespace(selector=SimpleNamespace(name=name), calibration=curves[0], second_look=curves[1])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return read_coco(write_coco(tmp_path_factory.mktemp("world") / "test", "test", 8))


def test_images_are_known_by_id_and_by_their_files(data):
    pairs = fit_to_pictures(choose_pairs(data), data.images, Problems())
    first, last = pairs[0], pairs[-1]
    by_id = scorer(CalibrationImages(SOURCE, (first.image_id,)))
    by_file = scorer(None, CalibrationImages("copy/other.json", (), (last.picture,)))
    used = UsedImages.of([by_id, by_file, scorer(False, name="acs-joint"), scorer(None)])
    assert used.unknown == ("acs-joint",)
    said = []
    kept = choose_groups(data, CONFIG, said.append, used, SOURCE)["small"]
    assert {p.image_id for p in pairs} - {p.image_id for p in kept} == {first.image_id, last.image_id}
    assert said[-1] == f"{len(pairs) - len(kept)} questions left out: calibrations were fitted on their images"
    # The same id in other annotations is another image.
    elsewhere = choose_groups(data, CONFIG, said.append, UsedImages.of([by_id]), "val/instances.json")["small"]
    assert elsewhere == pairs
    everything = UsedImages.of([scorer(CalibrationImages(SOURCE, tuple(p.image_id for p in pairs)))])
    with pytest.raises(DataError, match=rf"all {len(pairs)} questions.*--calibrated-too"):
        choose_groups(data, CONFIG, said.append, everything, SOURCE)
    assert f"{len(pairs)} of {len(pairs)} questions" in everything.fact({"small": pairs}, SOURCE)
    assert used.fact({"small": kept}, SOURCE) == "not known for acs-joint, whose calibration files do not name them"


def test_tables_about_scores_say_it():
    found = evaluation()
    fact = "3 of 4 questions"
    plain, noted = (tables_of(assess(e, draws=10)) for e in (found, replace(found, facts={CALIBRATED_ON: fact})))
    changed = [b.name for a, b in zip(plain, noted, strict=True) if a.notes != b.notes]
    assert changed and all(name.endswith(("calibration", "abstention")) for name in changed)
    assert all(f"Images of the calibrations: {fact}." in t.notes for t in noted if t.name in changed)

"""Selectors that acs does not know: one that needs no file, and one with a file that a step of training makes."""

import json
from dataclasses import dataclass

import numpy as np

from acs_core.artifacts.identity import ModelIdentity
from acs_core.artifacts.json_io import read_object
from acs_core.attention import AttentionNeeds
from acs_core.errors import ArtifactError
from acs_core.selection.base import ArtifactKind, SelectorSpec
from acs_core.types import ScoreKind
from training.fitting.artifacts import identity_of
from training.fitting.steps import FittingStep


class Largest:
    """Prefers the largest box."""

    name = "made-up-largest"
    needs = AttentionNeeds()
    score_kind = ScoreKind.RANK_RELATIVE
    feature = "area"
    greedy_decoding = False

    def qualities(self, candidates, record, image_size):
        return np.array([c.box.area for c in candidates]) / (image_size[0] * image_size[1])

    def confidences(self, candidates, record, image_size, qualities):
        return qualities


@dataclass(frozen=True)
class Prior:
    """The usual area of a good box, as a share of the picture."""

    identity: ModelIdentity
    area: float
    map_size: None = None


class NearPrior(Largest):
    """Prefers the box whose area is nearest to the usual one."""

    name = "made-up-prior"
    feature = "likeness"

    def __init__(self, prior):
        self.prior = prior

    def qualities(self, candidates, record, image_size):
        return 1.0 - np.abs(super().qualities(candidates, record, image_size) - self.prior.area)


def load_prior(path, lvlm):
    try:
        data = read_object(path, 1)
        prior = Prior(ModelIdentity.from_dict(data), float(data["area"]))
    except (ValueError, KeyError) as error:
        raise ArtifactError(f"prior {path}: {error}") from error
    if lvlm is not None and (problem := prior.identity.mismatch(lvlm)):
        raise ArtifactError(f"this prior does not fit: {problem}")
    return prior


def fit_prior(job, out):
    good = job.data.iou >= 0.5
    corners, size = job.data.box[good], job.data.image_size[good]
    area = float(np.mean(np.prod((corners[:, 2:] - corners[:, :2]) / size, axis=1)))
    assert job.results["fit"].train.size, "the steps before have been run"
    content = {"schema_version": 1, **identity_of(job.data).to_dict(), "area": area}
    (out / PRIOR.file_name).write_text(json.dumps(content))
    return area


PRIOR = ArtifactKind("prior", "prior.json", load_prior, ArtifactError, "no prior is known for the model {model}")
LARGEST_SPEC = SelectorSpec(Largest.name, Largest)
PRIOR_SPEC = SelectorSpec(NearPrior.name, NearPrior, reads=(PRIOR,))
PRIOR_STEP = FittingStep("prior", (PRIOR,), (PRIOR.file_name,), fit_prior)

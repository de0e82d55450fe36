"""What a collection is of: pairs and settings, cut into parts, and the manifest that tells two collections apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from acs_core.attention import Step
from acs_core.identity import ModelIdentity
from acs_core.lvlm.base import LVLM
from acs_core.lvlm.prompt import PROMPT
from training.pairs import Pair
from training.store import part_folder

PAIRS_PER_PART = 10  # what a killed run has to do again, at most
# Models whose map has the shape of the picture: the regressor wants one size for all (appendix A.3).
MAP_SIZES = {"qwen2_5_vl": (24, 24)}
VERSIONS = ("acs_ros", "torch", "transformers", "numpy", "zarr")


@dataclass(frozen=True)
class CollectConfig:
    """``map_size`` (h, w): the maps' size in the store, the regressor's input (None: the family's in
    ``MAP_SIZES``, else the model's own grid).
    ``greedy`` collects the one greedy answer instead of samples, as the baseline of an evaluation. ``step``: whether
    the attention is that of the position which emits a coordinate's first token or of the one which reads it."""

    samples: int = 10
    temperature: float = 1.0
    top_p: float = 0.9
    top_k: int = 100
    max_new_tokens: int = 256
    seed: int = 0
    map_size: tuple[int, int] | None = None
    greedy: bool = False
    step: Step = "emitting"


def with_map_size(config: CollectConfig, lvlm: LVLM) -> CollectConfig:
    """``config`` with the map size that the model's family wants, where none is set."""
    return config if config.map_size else replace(config, map_size=MAP_SIZES.get(lvlm.family))


@dataclass(frozen=True)
class Job:
    """All that a part depends on besides the model: pair i is sampled with a seed of its own, so that it does not
    matter who collects it, and when."""

    pairs: tuple[Pair, ...]
    config: CollectConfig

    @property
    def parts(self) -> int:
        """How many parts the collection has."""
        return math.ceil(len(self.pairs) / PAIRS_PER_PART)

    def pairs_of(self, number: int) -> range:
        """Indices of the pairs in part ``number``."""
        return range(number * PAIRS_PER_PART, min(len(self.pairs), (number + 1) * PAIRS_PER_PART))

    def missing(self, folder: Path) -> list[int]:
        """The parts that are not in ``folder`` yet."""
        return [n for n in range(self.parts) if not part_folder(folder, n).exists()]


def describe(lvlm: LVLM, job: Job, weights: str, data: str) -> dict[str, Any]:
    """The manifest: everything that a second run must share with the first, and the versions of what made it."""
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(job.config).items()}
    if job.config.step == "emitting":  # so that collections of before there was a choice can be gone on with
        del settings["step"]
    return {
        "model": {**ModelIdentity.of(lvlm).to_dict(), "weights": weights},
        "dtype": str(lvlm.hf_model.dtype).removeprefix("torch."),
        "prompt": PROMPT,
        "data": data,
        **settings,
        "pairs": [p.key for p in job.pairs],
        "kinds": [p.kind for p in job.pairs],
        **({"windows": [_corners(p) for p in job.pairs]} if any(p.window for p in job.pairs) else {}),
        "truth": [[t.as_tuple() for t in p.truth] for p in job.pairs],
        "versions": dict(_versions()),
    }


def config_of(manifest: Mapping[str, Any]) -> CollectConfig:
    """The settings that :func:`describe` wrote down."""
    kept = {f.name: manifest[f.name] for f in fields(CollectConfig) if f.name in manifest}
    size = kept.get("map_size")
    return CollectConfig(**kept | {"map_size": tuple(size) if size else None})


def _corners(pair: Pair) -> list[float] | None:
    return None if pair.window is None else [round(v, 3) for v in pair.window.box.as_tuple()]


def _versions() -> Iterator[tuple[str, str]]:
    for name in VERSIONS:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "unknown"

"""Definition of a collection: pairs and settings, the division into parts, and the manifest that identifies it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from acs_core.artifacts.identity import ModelIdentity
from acs_core.lvlm.base import LVLM
from acs_core.lvlm.instruction import PROMPT
from acs_core.lvlm.picture import PictureOptions
from training.collection.store import part_folder
from training.data.pairs import Pair
from training.settings import CollectConfig

PAIRS_PER_PART = 10  # a killed run loses at most so many pairs
VERSIONS = ("acs_ros", "torch", "transformers", "numpy", "zarr")


def with_map_size(config: CollectConfig, lvlm: LVLM) -> CollectConfig:
    """Return ``config`` with the map size of the model's family if it sets none."""
    return config if config.map_size else replace(config, map_size=lvlm.adapter.map_size)


@dataclass(frozen=True)
class Job:
    """Pairs and settings of a collection.

    Pair i has its own seed, so the result does not depend on the process or the order of collection.
    """

    pairs: tuple[Pair, ...]
    config: CollectConfig

    @property
    def parts(self) -> int:
        """Number of parts of the collection."""
        return math.ceil(len(self.pairs) / PAIRS_PER_PART)

    def pairs_of(self, number: int) -> range:
        """Return the indices of the pairs in part ``number``."""
        return range(number * PAIRS_PER_PART, min(len(self.pairs), (number + 1) * PAIRS_PER_PART))

    def missing(self, folder: Path) -> list[int]:
        """Return the numbers of the parts that ``folder`` does not hold."""
        return [n for n in range(self.parts) if not part_folder(folder, n).exists()]


def describe(lvlm: LVLM, job: Job, weights: str, data: str) -> dict[str, Any]:
    """Return the manifest of a collection: everything that a resumed run must share, and the versions of the
    libraries."""
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(job.config).items()}
    if job.config.step == "emitting":  # older manifests have no step: their collections can be resumed
        del settings["step"]
    return {
        "model": {**ModelIdentity.of(lvlm).to_dict(), "weights": weights},
        "dtype": str(lvlm.hf_model.dtype).removeprefix("torch."),
        **_quantization(lvlm),
        "prompt": PROMPT,
        "data": data,
        **settings,
        **_picture_options(lvlm),
        "pairs": [p.key for p in job.pairs],
        "kinds": [p.kind for p in job.pairs],
        **({"windows": [_corners(p) for p in job.pairs]} if any(p.window for p in job.pairs) else {}),
        "truth": [[t.as_tuple() for t in p.truth] for p in job.pairs],
        **({"pictures": [p.picture for p in job.pairs]} if any(p.picture for p in job.pairs) else {}),
        "versions": dict(_versions()),
    }


def config_of(manifest: Mapping[str, Any]) -> CollectConfig:
    """Return the settings in a manifest of :func:`describe`."""
    kept = {f.name: manifest[f.name] for f in fields(CollectConfig) if f.name in manifest}
    size = kept.get("map_size")
    return CollectConfig(**kept | {"map_size": tuple(size) if size else None})


def _quantization(lvlm: LVLM) -> dict[str, str]:
    """Return the quantisation of the weights, where they are quantised: older manifests do not have it."""
    config = getattr(getattr(lvlm.hf_model, "config", None), "quantization_config", None)
    if config is None:
        return {}
    bits = {8: getattr(config, "load_in_8bit", False), 4: getattr(config, "load_in_4bit", False)}
    return {"quantization": next((f"{n}bit" for n, on in bits.items() if on), str(config.quant_method))}


def _picture_options(lvlm: LVLM) -> dict[str, Any]:
    """Return the budget of image tokens and the frame of coordinates where they are not those of the model's family:
    older manifests do not have them."""
    given = asdict(lvlm.picture)
    usual = asdict(PictureOptions(lvlm.adapter.max_image_tokens))
    return {name: value for name, value in given.items() if value != usual[name]}


def picture_options_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of :func:`acs_core.lvlm.load_lvlm` for pictures with which a collection was made."""
    return {f.name: manifest[f.name] for f in fields(PictureOptions) if f.name in manifest}


def _corners(pair: Pair) -> list[float] | None:
    return None if pair.window is None else [round(v, 3) for v in pair.window.box.as_tuple()]


def _versions() -> Iterator[tuple[str, str]]:
    for name in VERSIONS:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "unknown"

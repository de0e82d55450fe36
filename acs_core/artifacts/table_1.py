"""The layers that table 1 of the paper names, in both readings of its layer numbers.

The paper does not say whether table 1 counts layers from 0 or from 1: section 4.2 writes layers 1 to L, and both
readings fit both models. Each is shipped as a head file of kind "layers" beside the other, and is chosen by its name
wherever a head file is named. The default is "table-1-from-0". `acs-train analyze` says which reading its own ranking
of the layers supports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from acs_core.artifacts.heads import HeadFile
from acs_core.artifacts.identity import ModelIdentity, ModelInfo
from acs_core.artifacts.registry import ASSETS, check_shipped, model_names
from acs_core.errors import HeadFileError

FROM_0, FROM_1 = "table-1-from-0", "table-1-from-1"
READINGS: Mapping[str, str] = MappingProxyType({FROM_0: "heads.json", FROM_1: "heads-from-1.json"})


def reading_for(name: str, lvlm: ModelInfo | ModelIdentity, root: Path = ASSETS) -> HeadFile:
    """Return the head file of the reading ``name``, one of :data:`READINGS`, for a model of the family, attention
    shape and hidden size of ``lvlm``.

    Raises:
        HeadFileError: table 1 names no layers for such a model, or the shipped file is damaged.
        ModelError: the shipped file is not as it was shipped.
    """
    known = []
    for folder in model_names(root):
        path = root / folder / READINGS[name]
        if not (root / folder / READINGS[FROM_1]).is_file():
            continue
        check_shipped(path, root)
        file = HeadFile.load(path)
        if file.identity.same_shape(lvlm):
            return file
        known.append(file.identity.model)
    model = lvlm.model if isinstance(lvlm, ModelIdentity) else lvlm.name
    raise HeadFileError(
        f"heads={name}: table 1 of the paper names no layers for {model}, only for {' and '.join(known)}. Build a head "
        "file with `acs-train build`, or choose a selector that needs none"
    )


def load_named(source: str | Path, lvlm: ModelInfo | ModelIdentity) -> HeadFile:
    """Return the reading that ``source`` names, for ``lvlm``, or read the head file at the path ``source``.

    Raises:
        HeadFileError, ModelError: see :func:`reading_for` and :meth:`acs_core.artifacts.heads.HeadFile.load`.
    """
    return reading_for(str(source), lvlm) if str(source) in READINGS else HeadFile.load(source)


@dataclass(frozen=True)
class ReadingSupport:
    """How well a ranking of the layers agrees with one reading of table 1.

    Attributes:
        name: one of :data:`READINGS`.
        layers: 0-based layers of the reading.
        shared: how many of them are among as many most important layers of the ranking.
        share: share of the layers' total importance that they hold, in [0, 1].
    """

    name: str
    layers: tuple[int, ...]
    shared: int
    share: float


def compare_readings(importance: Sequence[float] | np.ndarray, identity: ModelIdentity) -> tuple[ReadingSupport, ...]:
    """Compare an analysis with both readings of table 1.

    Args:
        importance: (L,) importance of each layer, not negative.
        identity: the model that was analysed.

    Returns:
        The support of each reading; empty if table 1 does not name a model of this family and attention shape.
    """
    values = np.asarray(importance, dtype=float)
    order = np.argsort(-values, kind="stable")
    try:
        files = {name: reading_for(name, identity) for name in READINGS}
    except HeadFileError:
        return ()
    return tuple(
        ReadingSupport(
            name,
            file.layers,
            len({*order[: len(file.layers)].tolist()} & {*file.layers}),
            float(values[list(file.layers)].sum() / max(values.sum(), np.finfo(float).tiny)),
        )
        for name, file in files.items()
    )


def supported_reading(found: Sequence[ReadingSupport]) -> str | None:
    """Return the name of the reading that agrees better in both numbers, more shared layers and a larger share of the
    importance; None if no reading does."""
    for one in found:
        others = [other for other in found if other is not one]
        if others and all(one.shared > other.shared and one.share > other.share for other in others):
            return one.name
    return None


def describe(found: Sequence[ReadingSupport], identity: ModelIdentity) -> list[str]:
    """Return lines for the terminal about the result of :func:`compare_readings`."""
    if not found:
        return [f"table 1 of the paper has no layers for {identity.model}: no reading of its layer numbers to compare"]
    lines = [
        f"{one.name}: {one.shared} of its {len(one.layers)} layers are among the {len(one.layers)} most important "
        f"here, and hold {one.share:.0%} of the importance"
        for one in found
    ]
    better = supported_reading(found)
    return [
        *lines,
        f"this analysis supports {better}" if better else "this analysis supports neither reading of table 1",
    ]

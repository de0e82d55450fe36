"""The selector and the files that a model has by default."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

from acs_core.artifacts.calibration import Calibration
from acs_core.artifacts.registry import asset_for, beside, calibration_file
from acs_core.selection.registry import (
    AUTO,
    AUTO_ORDER,
    ModelInfoWithDevice,
    default_selector,
    kinds_of,
    make_selector,
    spec_of,
)
from acs_core.selection.scorer import Scorer

log = logging.getLogger(__name__)


def scorer_for(
    lvlm: ModelInfoWithDevice,
    selector: str,
    *,
    calibration: Calibration | str | Path | Literal[False] | None = None,
    built: Path | None = None,
    **files: Any,
) -> Scorer:
    """Return the selector of that name for ``lvlm``, with its calibrations, of one look and of a second, if there are
    any. ``lvlm`` need not be loaded: its :class:`acs_core.lvlm.source.ModelSource` will do.

    ``files`` are those of :func:`acs_core.selection.registry.make_selector`. What is not given is taken from the folder
    ``built`` that `acs-train build` wrote, else from the model's own folder or the shipped files. With a folder
    ``built``, default calibrations are taken from it alone, since they belong to its files. They belong to the default
    files and are left out where any of those is replaced; a ``calibration`` that is given serves both looks; False
    leaves them out in any case.

    The name "auto" stands for :func:`acs_core.selection.registry.default_selector`; that it is consensus, for
    lack of a head file, is logged.

    Raises:
        SelectorError: unknown name.
        ArtifactError, CalibrationError: a file is missing, damaged, or made for another model.
        TypeError: a kind of file that no selector reads.
    """
    given = {name for name, file in files.items() if file is not None}
    if built:
        files |= {k.name: files.get(k.name) or beside(built, k.file_name) for k in kinds_of(selector)}
    if selector == AUTO:
        selector = default_selector(lvlm, files, given)
        if not spec_of(selector).reads:
            log.warning(
                "%s: no head file is known for this model, so the selector is %s, which needs none; `acs-train build` "
                "makes one",
                lvlm.name,
                selector,
            )
    second_look: Path | None = None
    if calibration is None and not given:
        calibration, second_look = (
            beside(built, name) if built else asset_for(lvlm, name) for name in calibration_names(selector)
        )
    chosen = make_selector(selector, lvlm, **files)
    curve = Calibration.load(calibration) if isinstance(calibration, str | Path) else calibration or None
    again = Calibration.load(second_look) if second_look else None
    scorer = Scorer(chosen, curve, again)
    scorer.check(lvlm)
    return scorer


def calibration_names(selector: str) -> tuple[str, str]:
    """Return the file names of a selector's calibrations, for results of one look and of a second."""
    return calibration_file(selector), calibration_file(selector, second_look=True)


def default_files(selector: str) -> tuple[str, ...]:
    """Return the names of all files that :func:`scorer_for` may look for in a folder of `acs-train build`."""
    kinds = tuple(kind.file_name for kind in kinds_of(selector))
    names = [spec.name for spec in AUTO_ORDER] if selector == AUTO else [selector]
    return (*kinds, *(file for name in names for file in calibration_names(name)))

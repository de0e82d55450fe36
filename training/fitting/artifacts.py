"""Output folder of the fitting steps, and the files that one step reads from another: head file, regressors, joint
model and held-out images. All must belong to the model of the collection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from acs_core.artifacts.identity import ModelIdentity
from acs_core.artifacts.json_io import Limits, read_json
from acs_core.artifacts.sealed import read_sealed
from acs_core.errors import OutputError
from acs_core.output_folder import OutputFolder
from acs_core.output_marker import LOCK, MARKER
from acs_core.selection import acs_free, box_regressor, joint_model, regressor
from acs_core.selection.base import ArtifactKind
from acs_core.selection.registry import Selector, artifact_kinds, selector_names, spec_of
from acs_core.selection.regressor import AttentionIoURegressor
from acs_core.selection.regressor_files import LoadedRegressor
from training.collection.store import Collection
from training.errors import DataError
from training.fitting.processes import is_further_process

REGRESSOR, BOX, JOINT, HEADS, FIT, ANALYSIS, CALIBRATION = (
    regressor.REGRESSOR.file_name,
    box_regressor.BOX_REGRESSOR.file_name,
    joint_model.JOINT_MODEL.file_name,
    acs_free.HEADS.file_name,
    "fit.json",
    "analysis.json",
    "calibration.json",
)
FIT_LIMITS = Limits(64 << 20, 5_000_000)

CARD, CARD_BESIDE = "README.md", "README-acs.md"  # the second is used if a model folder has the first
COMMANDS = ("acs-train fit", "acs-train analyze", "acs-train calibrate", "acs-train build")


def files_folder(
    out: Path, command: str, replaces: Sequence[str], inputs: Iterable[str | Path | None] = ()
) -> OutputFolder:
    """Return the output folder of the files for one LVLM, which all ``COMMANDS`` write to. In a user's model folder,
    the files are written beside those of the model."""
    return output_folder(
        out,
        command,
        replaces=replaces,
        inputs=inputs,
        shared_with=COMMANDS,
        # A copied or downloaded folder has no marker; the files of selectors identify it.
        adopts=lambda folder: _is_model_folder(folder) or bool(_kinds_in(folder)),
    )


def work_folder(work: Path, inputs: Iterable[Path] = ()) -> OutputFolder:
    """Return the folder of the collections and checkpoints of `acs-train build`. It may also hold folders of other acs
    commands, but no files of the user."""
    return output_folder(work, "acs-train build --work", inputs=inputs, adopts=_holds_acs_folders_alone)


def _holds_acs_folders_alone(folder: Path) -> bool:
    return all((entry / MARKER).is_file() for entry in folder.iterdir() if entry.name != LOCK)


def card_name(folder: OutputFolder) -> str:
    """Return the file name of the model card in ``folder``: ``CARD``, or ``CARD_BESIDE`` if the user has a model card
    of the first name.

    Raises:
        OutputError: both exist and acs wrote neither, or they were changed since.
    """
    for name in (CARD, CARD_BESIDE):
        if folder.may_write(name):
            return name
    raise OutputError(
        f"{folder.path} holds {CARD} and {CARD_BESIDE}, neither as acs wrote it: move {CARD_BESIDE} away, or name "
        "another folder"
    )


def _kinds_in(folder: Path) -> list[ArtifactKind]:
    return [kind for kind in artifact_kinds() if (folder / kind.file_name).is_file()]


def _is_model_folder(folder: Path) -> bool:
    """Whether ``folder`` holds a model as saved by transformers."""
    try:
        config = read_json(folder / "config.json")
    except ValueError:
        return False
    return isinstance(config, dict) and isinstance(config.get("model_type"), str)


def output_folder(out: Path, command: str, **options: Any) -> OutputFolder:
    """Return an output folder with the ``options`` of :class:`acs_core.output_folder.OutputFolder`.

    Lightning runs the whole command again for each further GPU; those processes get a stand-in that discards its files.
    """
    return (_NoFolder if is_further_process() else OutputFolder)(out, command, **options)


class _NoFolder(OutputFolder):
    """Stand-in for further Lightning processes: yields a temporary folder that is discarded."""

    def __enter__(self) -> OutputFolder:
        return self

    @contextmanager
    def stage(self, *replaced: str) -> Iterator[Path]:
        with TemporaryDirectory() as folder:
            yield Path(folder)


def identity_of(data: Collection) -> ModelIdentity:
    """Return the identity of the LVLM that ``data`` was collected with."""
    return ModelIdentity.from_dict(data.manifest["model"])


def check_same_model(data: Collection, folder: str | Path, found: ModelIdentity, what: str) -> None:
    """Raise DataError unless ``found``, the model of ``what``, is the model of the collection ``data``."""
    mine = identity_of(data)
    if not mine.is_same(found):
        raise DataError(
            f"{folder} holds attention of {_named(mine)}, but {what} was made for {_named(found)}: both must be of one "
            "model"
        )


def made_selectors(out: Path, data: Collection) -> list[Selector]:
    """Return the selectors whose files are in ``out`` and that state a confidence, in the order of the registry.

    Raises:
        DataError: ``out`` holds no file of a selector, or one was made for another model than that of ``data``.
        ArtifactError: a file is damaged.
    """
    if not (kinds := _kinds_in(out)):
        *names, last = (kind.file_name for kind in artifact_kinds())
        raise DataError(f"{out} holds neither {', '.join(names)} nor {last}: run `acs-train fit` and `analyze` first")
    files = {kind: read_artifact(out, kind, data) for kind in kinds}
    found = []
    for spec in map(spec_of, selector_names()):
        if any(kind not in files for kind in spec.reads):
            continue
        selector = spec.make(*(files[kind] for kind in spec.reads))
        if selector.feature:
            found.append(selector)
    return found


def read_artifact(out: Path, kind: ArtifactKind, data: Collection) -> Any:
    """Read the file of this kind in ``out`` and check that it fits ``data``.

    Raises:
        DataError: the file was made for another model or map size.
        ArtifactError: it is missing or damaged.
    """
    file = out / kind.file_name
    loaded = kind.load(file, None)
    check_same_model(data, "the collection", loaded.identity, str(file))
    size = loaded.map_size
    if size is not None and tuple(data.maps.shape[-2:]) != size:
        raise DataError(
            f"the collection's maps are {data.maps.shape[-2]} x {data.maps.shape[-1]}, {file} reads {size[0]} x "
            f"{size[1]}: collect with --map-side {size[0]}"
        )
    return loaded


def read_regressor(out: Path, data: Collection) -> LoadedRegressor[AttentionIoURegressor]:
    """Read the regressor in ``out``; see :func:`read_artifact`."""
    loaded: LoadedRegressor[AttentionIoURegressor] = read_artifact(out, regressor.REGRESSOR, data)
    return loaded


def held_candidates(out: Path, data: Collection) -> np.ndarray:
    """Return the indices of the candidates of the images that ``acs-train fit`` held out.

    Raises:
        DataError: ``fit.json`` is missing or damaged, or names none of the collection's images.
        OSError: it cannot be read, but may be intact.
    """
    try:
        held = np.array(read_sealed(out / FIT, FIT_LIMITS)["held_images"], np.int64)
    except (FileNotFoundError, OverflowError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{out / FIT} is missing or damaged ({error}): run `acs-train fit` into {out} first") from error
    index = np.flatnonzero(np.isin(data.image, held))
    if not len(index):
        raise DataError(f"{out / FIT} belongs to another collection: none of its held-out images is in this one")
    return index


def _named(identity: ModelIdentity) -> str:
    commit = f" at {identity.revision}" if identity.revision else ""
    return f"{identity.model}{commit} ({identity.num_layers} x {identity.num_heads} heads)"

"""The files that ship with acs, one folder per LVLM under ``acs_core/assets``: an embedded model, or only the head
file of a model that is downloaded. A folder may hold ``heads.json``, ``regressor.safetensors``, ``joint.safetensors``,
``calibration-<selector>.json`` and ``calibration-<selector>-second-look.json``; a model folder of the user may hold the
same files and then needs no options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from acs_core.errors import ModelError
from acs_core.heads import HeadFile
from acs_core.identity import MAX_NAME, ModelLike
from acs_core.jsonfile import read_object
from acs_core.shipped import check_shipped

ASSETS: Path = Path(__file__).resolve().parent / "assets"
BUILT_FILE, BUILT_VERSION = "acs.json", 1


def model_names(root: Path = ASSETS) -> tuple[str, ...]:
    """The short names that :func:`resolve_model` knows, sorted."""
    if not root.is_dir():
        return ()
    return tuple(sorted(p.name for p in root.iterdir() if (p / "config.json").exists() or (p / "heads.json").exists()))


@dataclass(frozen=True)
class BuiltFor:
    """What a folder of `acs-train build` was built for: a short name, hub id or folder, and a hub id's revision."""

    model: str
    revision: str | None = None


def built_for(folder: Path) -> BuiltFor | None:
    """The model that a folder of `acs-train build` names in its ``acs.json``; None for any other folder.

    Raises:
        ModelError: ``acs.json`` is damaged.
    """
    file = folder / BUILT_FILE
    if not file.is_file() or (folder / "config.json").exists():
        return None
    try:
        data = read_object(file, BUILT_VERSION)
    except ValueError as error:
        raise ModelError(f"{file}: {error}. Build the folder again with `acs-train build`") from error
    model, revision = data.get("model"), data.get("revision")
    if not isinstance(model, str) or not _is_name(model) or not isinstance(revision, str | None):
        raise ModelError(f'{file}: fields "model" and "revision" must be a name and a commit or null')
    if revision is not None and not _is_name(revision):
        raise ModelError(f'{file}: field "revision" must be a commit or null')
    return BuiltFor(model, revision)


def calibration_file(selector: str, second_look: bool = False) -> str:
    """The name of a selector's calibration file: for answers of one look, or for those that came with a second."""
    return f"calibration-{selector}{'-second-look' if second_look else ''}.json"


def beside(folder: Path, file_name: str) -> Path | None:
    """``file_name`` in ``folder``, or None where it is not there."""
    return folder / file_name if (folder / file_name).is_file() else None


def resolve_model(name: str, root: Path = ASSETS) -> str:
    """What to load for ``name``: the folder of an embedded model, the hub id behind the short name of a larger one
    ("qwen2.5-vl-7b"), or ``name`` itself, which may be a hub id or a folder.

    Raises:
        HeadFileError: the short name's head file is damaged.
    """
    if name not in model_names(root) or Path(name).is_dir():
        return name
    folder = root / name
    return str(folder) if (folder / "config.json").exists() else HeadFile.load(folder / "heads.json").identity.model


def asset_for(lvlm: ModelLike, file_name: str, root: Path = ASSETS) -> Path | None:
    """The default ``file_name`` for a loaded LVLM, or None where there is none.

    Looked for in the model's own folder, then in the shipped folder of that model, known by its name. A shipped head
    file of kind "layers" holds for a model class rather than for one set of weights, so it also serves a model of
    another name with the same family and attention shape (a fine-tuned or renamed copy).

    Raises:
        HeadFileError, ModelError: a shipped file is damaged.
    """
    own = Path(lvlm.name) / file_name
    if own.is_file():
        return own
    same_shape = None
    for name in model_names(root):
        head_path, wanted = root / name / "heads.json", root / name / file_name
        if not head_path.is_file() or not wanted.is_file():
            continue
        file = HeadFile.load(head_path)
        identity = file.identity
        shape = (identity.family, identity.num_layers, identity.num_heads)
        if shape != (lvlm.family, lvlm.num_layers, lvlm.num_heads):
            continue
        if identity.same_name(lvlm):
            check_shipped(wanted, root)
            return wanted
        if file.kind == "layers" and file_name == "heads.json":
            same_shape = wanted
    if same_shape is not None:
        check_shipped(same_shape, root)
    return same_shape


def _is_name(text: str) -> bool:
    return 1 <= len(text) <= MAX_NAME and text.isprintable()

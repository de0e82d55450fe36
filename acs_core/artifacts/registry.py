"""Registry of the files shipped with acs, one folder per LVLM under ``acs_core/assets``, and their SHA-256 sums.

A folder holds an embedded model, or only the head file of a model that is downloaded: ``heads.json``,
``regressor.safetensors``, ``regressor-box.safetensors``, ``joint.safetensors``, ``calibration-<selector>.json`` and
``calibration-<selector>-second-look.json``. A model folder of the user, or a model's repository on the hub, may hold
the same files; they are then used by default.

``python -m acs_core.artifacts.registry`` rewrites the sums after an intended change of the files; ``sha256sum -c
SHA256SUMS`` in the folder also checks them.
"""

from __future__ import annotations

if __name__ == "__main__":  # first: a signal may come while the modules below are imported
    from acs_core.entry import run

    run("acs_core.artifacts.registry", "registry")

import hashlib
from collections.abc import Iterator
from pathlib import Path

from acs_core.artifacts.heads import HeadFile
from acs_core.artifacts.hub import HubRepository, is_commit
from acs_core.artifacts.identity import ModelInfo
from acs_core.errors import ModelError

ASSETS: Path = Path(__file__).resolve().parents[1] / "assets"
SUMS = "SHA256SUMS"


def model_names(root: Path = ASSETS) -> tuple[str, ...]:
    """Return the short names that :func:`resolve_model` knows, sorted."""
    if not root.is_dir():
        return ()
    return tuple(sorted(p.name for p in root.iterdir() if (p / "config.json").exists() or (p / "heads.json").exists()))


def calibration_file(selector: str, second_look: bool = False) -> str:
    """Return the file name of a selector's calibration, for results with or without a second look."""
    return f"calibration-{selector}{'-second-look' if second_look else ''}.json"


def beside(folder: Path, file_name: str) -> Path | None:
    """Return the path of ``file_name`` in ``folder``; None if there is no such file."""
    return folder / file_name if (folder / file_name).is_file() else None


def resolve_model(name: str, root: Path = ASSETS) -> str:
    """The folder or hub id to load for ``name``: the folder of an embedded model, the hub id behind the short name of a
    larger one ("qwen2.5-vl-7b"), or ``name`` itself, which may be a hub id or a folder.

    Raises:
        HeadFileError: the head file of the short name is damaged.
    """
    if name not in model_names(root) or Path(name).is_dir():
        return name
    folder = root / name
    return str(folder) if (folder / "config.json").exists() else HeadFile.load(folder / "heads.json").identity.model


def asset_for(lvlm: ModelInfo, file_name: str, root: Path = ASSETS) -> Path | None:
    """Return the default ``file_name`` for a loaded LVLM; None if there is none.

    It is searched for in the model's own folder or hub repository, then in the shipped folder of the model of that
    name. A shipped head file of kind "layers" is valid for an architecture rather than one set of weights, so it also
    serves models of another name with the same family, attention shape and hidden size (fine-tuned or renamed copies);
    checking the file logs that (:meth:`acs_core.artifacts.identity.ModelIdentity.mismatch`).

    Raises:
        HeadFileError, ModelError: a shipped file is damaged.
    """
    if own := _own(lvlm, file_name):
        return own
    same_shape = None
    for name in model_names(root):
        head_path, wanted = root / name / "heads.json", root / name / file_name
        if not head_path.is_file() or not wanted.is_file():
            continue
        file = HeadFile.load(head_path)
        identity = file.identity
        if not identity.same_shape(lvlm):
            continue
        if identity.same_name(lvlm):
            check_shipped(wanted, root)
            return wanted
        if file.kind == "layers" and file_name == "heads.json":
            same_shape = wanted
    if same_shape is not None:
        check_shipped(same_shape, root)
    return same_shape


def _own(lvlm: ModelInfo, file_name: str) -> Path | None:
    """The file in the model's own folder, or in its repository at the commit that it is loaded from."""
    folder = Path(lvlm.name)
    if folder.is_dir() or lvlm.revision is None or not is_commit(lvlm.revision):
        return beside(folder, file_name)
    return HubRepository(lvlm.name, lvlm.revision).find(file_name)


def check_shipped(path: Path, root: Path) -> None:
    """Check that the file ``path``, or every file of the folder ``path``, is as shipped.

    Paths outside ``root`` are not checked, nor is anything if ``root`` has no sums.

    Raises:
        ModelError: a file is changed, missing, or was added after the sums were written.
    """
    place, root = path.resolve(), root.resolve()
    if not place.is_relative_to(root) or not (root / SUMS).is_file():
        return
    known = {root / name: digest for name, digest in read_sums(root).items()}
    wanted = {file for file in known if file == place or file.is_relative_to(place)}
    for file in sorted(wanted | set(_files(place))):
        if file not in known:
            problem = "was not shipped with acs"
        elif not file.is_file():
            problem = "is missing"
        elif digest_of(file) != known[file]:
            problem = "is not the one that was shipped with acs"
        else:
            continue
        raise ModelError(
            f"{file} {problem}: install acs again, or run `python -m acs_core.artifacts.registry` where that was on "
            "purpose"
        )


def read_sums(root: Path) -> dict[str, str]:
    """Return the SHA-256 in hex of each file, by its path below ``root``.

    Raises:
        ModelError: the sums cannot be read.
    """
    found = {}
    try:
        for line in (root / SUMS).read_text(encoding="utf-8").splitlines():
            digest, name = line.split("  ", 1)
            found[name] = digest
    except (OSError, ValueError) as error:
        raise ModelError(f"{root / SUMS} cannot be read ({error}): install acs again") from error
    return found


def write_sums(root: Path) -> int:
    """Write the sums of all files below ``root`` and return the number of files."""
    files = sorted(_files(root))
    lines = [f"{digest_of(file)}  {file.relative_to(root).as_posix()}\n" for file in files]
    (root / SUMS).write_text("".join(lines), encoding="utf-8")
    return len(files)


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _files(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
    for file in place.rglob("*") if place.is_dir() else ():
        if file.is_file() and file.name != SUMS:
            yield file


def main() -> int:
    """Rewrite the sums of the shipped files and return the exit code."""
    print(f"{ASSETS / SUMS}: {write_sums(ASSETS)} files")
    return 0

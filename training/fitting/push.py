"""Upload of the files of `acs-train build` to a repository of the hub, which `Grounder.from_pretrained` then takes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

from acs_core.artifacts.built import BUILT_FILE, BuiltFiles, built_content, built_for
from acs_core.artifacts.calibration import Calibration
from acs_core.artifacts.hub import LOGIN, first_line
from acs_core.artifacts.identity import ModelIdentity
from acs_core.artifacts.model_name import is_hub_id
from acs_core.artifacts.registry import model_names
from acs_core.lvlm.source import ModelSource
from acs_core.selection.registry import artifact_kinds
from training.errors import DataError
from training.fitting.artifacts import ANALYSIS, CALIBRATION, CARD, FIT

CALIBRATIONS, FIGURES = "calibration-*.json", "figures/*"
UNTOUCHED = (".gitattributes", "LICENSE")  # which an upload neither writes nor deletes
CARD_DIGEST = "card_sha256"  # in acs.json: of the card as it was uploaded
_METADATA = re.compile(rb"\A---\r?\n.*?^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_USE = re.compile(r'(Grounder\.from_pretrained\(")[^"]*(")')


@dataclass(frozen=True)
class Upload:
    """The files to upload.

    Attributes:
        files: path of each file of the folder, by its name in the repository; without card and ``acs.json``.
        card: text of the model card.
        pointer: content of ``acs.json``, which names the model, its commit and the files.
    """

    files: dict[str, Path]
    card: str
    pointer: str

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all files in the repository, sorted."""
        return tuple(sorted((*self.files, CARD, BUILT_FILE)))


def prepare(
    folder: Path, repository: str, open_source: Callable[[str, str | None], ModelSource], model: str | None = None
) -> Upload:
    """Check the files of a folder of `acs-train build`, and return what to upload.

    Args:
        folder: the folder.
        repository: hub id to upload to, which the card names.
        open_source: reads the ``config.json`` of a model at a revision (:func:`acs_core.lvlm.open_model`).
        model: hub id of the model, where the files were built for a folder of this machine.

    Raises:
        DataError: it is no such folder, its model is one that only this machine has, its model's commit is unknown, or
            a file was made for another model or commit.
        ModelError: the model cannot be found.
        ArtifactError, CalibrationError: a file is damaged.
    """
    built = built_for(folder)
    if built is None:
        raise DataError(
            f"{folder} has no {BUILT_FILE}, so it is no folder that `acs-train build` wrote; files in a model's own "
            "folder are uploaded with the model"
        )
    source = _source_of(built, open_source, model)
    own = [kind.file_name for kind in artifact_kinds()]
    patterns = (*own, CALIBRATIONS, CALIBRATION, FIT, ANALYSIS, FIGURES)
    paths = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    files = {name: p for name, p in paths.items() if any(fnmatch(name, pattern) for pattern in patterns)}
    if not any(name in files for name in own):
        raise DataError(f"{folder} holds none of {', '.join(own)}: run `acs-train build` again")
    for name, identity in _identities(files):
        _check(name, identity, source)
    try:
        card = (folder / CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{folder / CARD} cannot be read ({error}): run `acs-train build` again") from error
    picture = built.max_image_tokens, built.coordinate_frame
    pointer = built_content(model or built.model, source.revision, files, *picture)
    return Upload(files, hub_card(card, repository, source), json.dumps(pointer, indent=1) + "\n")


def hub_card(text: str, repository: str, source: ModelSource) -> str:
    """Return the card of a built folder for the hub: with ``repository`` in the example, and with metadata that names
    the model, unless it has metadata already."""
    text = _USE.sub(rf"\g<1>{repository}\g<2>", text)
    if text.startswith("---\n"):
        return text
    base = [f"base_model: {source.name}"] if source.revision else []
    return "\n".join(["---", "library_name: acs", *base, "tags:", "- visual-grounding", "- robotics", "---", "", text])


def push(upload: Upload, repository: str, private: bool = False, say: Callable[[str], None] = lambda _: None) -> str:
    """Upload the files as one commit to the branch main, and return the commit. The repository is created if there is
    none. Files of an earlier upload that are no longer among the files are deleted. A card that was edited on the hub
    stays as it is.

    Args:
        upload: the files.
        repository: hub id.
        private: whether the repository must be private; it is created as such a one.
        say: called with a sentence if the card stays.

    Raises:
        DataError: the repository holds other files than those of an earlier upload, or is public although ``private``
            was wanted, or changed during the upload, or the hub refuses the upload.
    """
    api = HfApi()
    with _explained(repository):
        api.create_repo(repository, private=private or None, exist_ok=True)
        info = api.repo_info(repository)
        if private and not info.private:
            raise DataError(
                f"the repository {repository} exists and is public: make it private in its settings, name another "
                "one, or leave --private out"
            )
        now = _RepositoryFiles(api, repository, info.sha)
        pointer, there = json.loads(upload.pointer), now.names
        digest: str | None = hashlib.sha256(upload.card.encode()).hexdigest()
        earlier = now.earlier() if BUILT_FILE in there else None
        before = earlier["files"] if earlier else []
        allowed = {*before, *UNTOUCHED, CARD, BUILT_FILE} if earlier else now.fresh()
        if foreign := sorted((there - allowed) | (there & {"config.json"})):
            raise DataError(
                f"the repository {repository} holds {foreign[0]}, which `acs-train push` did not upload: name another "
                "repository"
            )
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(name, str(path)) for name, path in upload.files.items()),
            *(CommitOperationDelete(name) for name in before if name in there and name not in upload.names),
        ]
        if earlier and CARD in there and now.digest(CARD) != earlier.get(CARD_DIGEST):
            say(f"{CARD} was edited on the hub and stays as it is")
            digest = earlier.get(CARD_DIGEST)
        else:
            operations.append(CommitOperationAdd(CARD, upload.card.encode()))
        content = json.dumps(pointer | {CARD_DIGEST: digest}, indent=1) + "\n"
        operations.append(CommitOperationAdd(BUILT_FILE, content.encode()))
        message = f"acs-train push: files for {pointer['model']}"
        done = api.create_commit(repository, operations, commit_message=message, parent_commit=info.sha)
        return str(done.oid)


@dataclass(frozen=True)
class _RepositoryFiles:
    """Files of a repository of the hub at one commit."""

    api: HfApi
    repository: str
    commit: str | None

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of all files."""
        try:
            return frozenset(self.api.list_repo_files(self.repository, revision=self.commit))
        except EntryNotFoundError:  # nothing in it
            return frozenset()

    def content(self, name: str) -> bytes:
        """Return the content of a file."""
        return Path(self.api.hf_hub_download(self.repository, name, revision=self.commit)).read_bytes()

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a file."""
        return hashlib.sha256(self.content(name)).hexdigest()

    def earlier(self) -> dict[str, Any] | None:
        """Return the ``acs.json`` of the last upload; None if the file is not one of `acs-train push`."""
        try:
            pointer = json.loads(self.content(BUILT_FILE))
        except ValueError:
            return None
        files = pointer.get("files") if isinstance(pointer, dict) and "model" in pointer else None
        return pointer if isinstance(files, list) and all(isinstance(name, str) for name in files) else None

    def fresh(self) -> set[str]:
        """Return the files that a first upload may find: those which the hub creates with an empty repository. Its
        card has metadata at most."""
        allowed = set(UNTOUCHED)
        if CARD in self.names and not _METADATA.sub(b"", self.content(CARD), count=1).strip():
            allowed.add(CARD)
        return allowed


def _source_of(
    built: BuiltFiles, open_source: Callable[[str, str | None], ModelSource], model: str | None
) -> ModelSource:
    name, revision = (model, None) if model else (built.model, built.revision)
    if name not in model_names() and (not is_hub_id(name) or Path(name).is_dir()):
        raise DataError(
            f"the files are for the model {name}, a folder that others do not have: upload the model first, and name "
            "its hub id with --model"
        )
    source = open_source(name, revision)
    if model is None and revision is None and not source.is_folder:
        raise DataError(
            f"the files are for {name}, but of which commit is not known (an earlier version of acs built them): build "
            "them again, or name the model with --model, which takes its newest commit"
        )
    return source


def _identities(files: dict[str, Path]) -> Iterator[tuple[str, ModelIdentity]]:
    for kind in artifact_kinds():
        if kind.file_name in files:
            yield kind.file_name, kind.load(files[kind.file_name], None).identity
    for name, path in files.items():
        if fnmatch(name, CALIBRATIONS):
            yield name, Calibration.load(path).identity


def _check(name: str, identity: ModelIdentity, source: ModelSource) -> None:
    problem = identity.mismatch(source)
    if problem is None and not identity.same_name(source):
        problem = f"it was made for {identity.model}, the model is {source.name}"
    if problem is None and identity.revision and identity.revision != source.revision:
        problem = f"it was made for commit {identity.revision}, the model is at {source.revision}"
    if problem:
        raise DataError(f"{name} does not fit: {problem}. Build all files for one model with `acs-train build`")


@contextmanager
def _explained(repository: str) -> Iterator[None]:
    """Convert the errors of the hub's client to a DataError that says what to do."""
    try:
        yield
    except DataError:
        raise
    except OfflineModeIsEnabled as error:
        raise DataError("HF_HUB_OFFLINE is set, so nothing can be uploaded: unset it") from error
    except (HfHubHTTPError, RepositoryNotFoundError) as error:
        status = error.response.status_code
        advice = "try again later"
        if status in (401, 403, 404):
            advice = f"{LOGIN} as somebody who may write to {repository}"
        if status in (409, 412):
            advice = "it was changed during the upload; push again"
        raise DataError(f"the hub refuses the upload to {repository} (HTTP {status}): {advice}") from error
    except Exception as error:  # the HTTP client, the file system: various types
        raise DataError(
            f"{repository} could not be uploaded ({type(error).__name__}: {first_line(error)}): check the network"
        ) from error

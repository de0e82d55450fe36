"""The local cache of the hub as `hf download` leaves it: blobs, and for each commit a folder of links to them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants


def add_to_cache(
    cache: Path, name: str, folder: Path, branch: str | None = "main", keep: Callable[[str], bool] = lambda name: True
) -> str:
    """Put the files of ``folder`` whose path ``keep`` accepts into the cache as one commit of the repository ``name``,
    which ``branch`` then points to, and return the commit. Files that stand there already are of earlier commits."""
    repository = cache / f"models--{name.replace('/', '--')}"
    files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    digests = {path: hashlib.sha256(p.read_bytes()).hexdigest() for path, p in files.items() if keep(path)}
    commit = hashlib.sha1(repr(digests).encode()).hexdigest()
    for path, digest in digests.items():
        blob, link = repository / "blobs" / digest, repository / "snapshots" / commit / path
        blob.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not blob.exists():
            blob.write_bytes(files[path].read_bytes())
        if not link.exists():
            link.symlink_to(os.path.relpath(blob, link.parent))
    if branch is not None:
        ref = repository / "refs" / branch
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit)
    return commit


def use_cache(patch: pytest.MonkeyPatch, cache: Path) -> Path:
    """Make the hub's client of this process, and of those that it starts, use ``cache``, offline: what HF_HUB_CACHE and
    HF_HUB_OFFLINE=1 do, which the client reads when it is imported."""
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_OFFLINE", True)
    patch.setenv("HF_HUB_CACHE", str(cache))
    patch.setenv("HF_HUB_OFFLINE", "1")
    return cache


def config_alone(path: str) -> bool:
    """For ``keep``: only what is read before the weights."""
    return path == "config.json"

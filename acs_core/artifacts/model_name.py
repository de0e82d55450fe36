"""Check of a model's name before anything is loaded or asked of the hub, which can take half a minute to answer."""

from __future__ import annotations

import re
from pathlib import Path

from acs_core.artifacts.registry import ASSETS, model_names
from acs_core.errors import ModelError
from acs_core.plain_text import nearest, shorten

MAX_HUB_ID = 96  # characters, as the hub has it
_HUB_PART = re.compile(r"\w([\w.-]*\w)?", re.ASCII)


def check_model_name(name: str, root: Path = ASSETS) -> None:
    """Check that ``name`` can be a model: a short name of ``root``, a folder that exists, or a hub id.

    Raises:
        ModelError: it is none of them; says which it seems to be, and for a short name the nearest ones.
    """
    if problem := name_problem(name, root):
        raise ModelError(f"{name if name.strip() else shorten(name)}: {problem}")


def name_problem(name: str, root: Path = ASSETS) -> str:
    """Why ``name`` cannot be a model, as the end of a message that begins with it; "" if it can."""
    known = model_names(root)
    shipped = f"shipped with acs are {', '.join(known)}"
    if not name.strip():
        return f"the model's name is empty: give a folder, a hub id like owner/name, or a short name; {shipped}"
    if name in known or _is_folder(name):
        return ""
    if _looks_like_path(name):
        return "no such model folder: check the path, or give a hub id like owner/name"
    if "/" in name and _exists(Path(name).parent):
        parent = Path(name).parent
        return f"no such model folder, though {parent} is there: check the path, or give a hub id like owner/name"
    owner, slash, model = name.partition("/")
    near = nearest((model or owner).lower(), known, most=2)
    hint = f"did you mean {near}?" if near else shipped
    if not slash:
        return f"no such model folder, nor a short name ({hint}): check the path, or give a hub id like owner/name"
    if not is_hub_id(name):
        return (
            "no such model folder, nor a hub id, which is owner/name of ASCII letters, digits and single '-', '_' or "
            f"'.' between them, at most {MAX_HUB_ID} characters"
        )
    return ""


def is_hub_id(name: str) -> bool:
    """Return whether ``name`` has the form of a hub id, owner/name; it may be a folder, too."""
    owner, slash, model = name.partition("/")
    good = bool(slash) and len(name) <= MAX_HUB_ID and "--" not in name and ".." not in name
    return good and all(map(_HUB_PART.fullmatch, (owner, model)))


def _looks_like_path(name: str) -> bool:
    is_path = name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1 or "\\" in name
    return is_path or _exists(Path(name))


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):  # too long, or with a NUL
        return False


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False

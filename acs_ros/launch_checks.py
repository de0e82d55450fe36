"""Checks of the launch files' arguments. Imports neither launch nor anything that the node's environment alone has."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

from acs_core.plain_text import join_some, nearest, one_line, shorten

WRONG_SETUP = 2  # exit code of a node whose parameters or files are wrong
LAUNCHS_OWN = ("launch-prefix", "launch-prefix-filter")  # added by the options of ros2 launch with these names
MAX_NAME = 100  # characters of a name in a message


def check_arguments(given: Iterable[str], known: Sequence[str], launch_file: str, command: Sequence[str]) -> None:
    """Check the names of the arguments of ``ros2 launch``, which ignores those that no launch file declares.

    Arguments are checked only if ``launch_file`` is the file on the command line: one that includes it may have others.

    Args:
        given: The arguments as ``NAME:=VALUE``.
        known: Names that ``launch_file`` declares.
        launch_file: Its path or name.
        command: The command line of the process.

    Raises:
        ValueError: arguments are not known; names them, and the nearest known names.
    """
    own = PurePath(launch_file).name
    if not any(PurePath(word).name == own for word in command):
        return
    names = dict.fromkeys(text.partition(":=")[0] for text in given)
    wrong = [name for name in names if name not in known and name not in LAUNCHS_OWN]
    if wrong:
        hints = {name: nearest(name, known) for name in wrong}
        said = [one_line(n, MAX_NAME) + (f" (did you mean {near}?)" if near else "") for n, near in hints.items()]
        one = "no launch argument" if len(said) == 1 else "no launch arguments"
        raise ValueError(f"{own} has {one} {join_some(said)}; --show-args lists them")


def check_params_file(path: str) -> None:
    """Check that there is a parameter file, since launch_ros starts a node without one that is missing.

    Args:
        path: Value of the argument ``params_file``.

    Raises:
        ValueError: there is no such file.
    """
    if not Path(path).is_file():
        raise ValueError(f"params_file: there is no file {path}")


def check_value(name: str, text: str, kind: type) -> None:
    """Check the value of a launch argument, since the error of launch itself does not name the argument.

    Args:
        name: Name of the argument.
        text: Its value.
        kind: ``int``, ``float``, ``bool`` or ``str``.

    Raises:
        ValueError: ``text`` is not a value of this type.
    """
    try:
        right = text.lower() in ("true", "false") if kind is bool else kind is str or math.isfinite(kind(text))
    except (ValueError, OverflowError):
        right = False
    if not right:
        wanted = {int: "a whole number", float: "a number", bool: "true or false"}[kind]
        raise ValueError(f"{name} must be {wanted}, got {shorten(text)}")


def end_message(exit_code: int | None) -> str:
    """Message about a node that ended with ``exit_code`` and is not to be started again; "" if it may be."""
    if exit_code != WRONG_SETUP:
        return ""
    return (
        f"the node ended with exit code {WRONG_SETUP}: its set-up is wrong, as it says above. It is not started again, "
        "as that would change nothing"
    )

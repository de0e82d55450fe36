"""Checks of the parameters given at start: names that do not exist, and files that are for another node.

rcl ignores both, and the node would run with defaults.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from acs_core.plain_text import MOST, nearest, one_line
from acs_ros.node.parameter_files import ParameterFile, full_name
from acs_ros.node.parameter_table import SPECS
from acs_ros.node.remappings import MISSPELT, Remapping

ROSS_OWN = ("use_sim_time", "start_type_description_service")  # declared by rclpy
UPDATERS = ("diagnostic_updater.use_fqn", "diagnostic_updater.period")  # as nodes with a diagnostic_updater have them
ROSS_OWN_PREFIX = "qos_overrides."
KNOWN = (*(spec.name for spec in SPECS), *ROSS_OWN, *UPDATERS)
IGNORED = "Ignored, as another node may be meant"
MAX_NAME = 100  # characters of a name in a message


@dataclass(frozen=True)
class GivenParameters:
    """What a command line gives to its nodes.

    Attributes:
        files: The files of ``--params-file``.
        assigned: (node, name) of each ``-p``; the node is "" where none is named.
        remappings: The rules of ``-r`` for topics and services.
    """

    files: tuple[ParameterFile, ...] = ()
    assigned: tuple[tuple[str, str], ...] = ()
    remappings: tuple[Remapping, ...] = ()

    @classmethod
    def of(cls, arguments: Sequence[str]) -> GivenParameters:
        """Read what is given between ``--ros-args`` and ``--``.

        Raises:
            ValueError: a file is missing, or is no parameter file; or ``-p`` or ``-r`` has no ``:=``. Names it.
        """
        files, assigned, remappings = [], [], []
        for option, value in _ros_options(arguments):
            if option == "--params-file":
                files.append(ParameterFile.read(Path(value)))
            elif option in ("-p", "--param"):
                node, _, name = _sides(option, value, "samples:=3")[0].rpartition(":")
                assigned.append((node, name))
            elif option in ("-r", "--remap"):
                left, right = _sides(option, value, "~/image:=/camera/image")
                node, _, name = left.removeprefix("rostopic://").removeprefix("rosservice://").rpartition(":")
                if not name.startswith("__"):
                    remappings.append(Remapping(node, name, right))
        return cls(tuple(files), tuple(assigned), tuple(remappings))

    def check(self, node: str, given: Iterable[str]) -> GivenNotes:
        """Check the names ``given`` to the node of the full name ``node``, by whatever way.

        Returns:
            What is to be warned of.

        Raises:
            ValueError: a name that only this node can be meant with does not exist, or no file has anything for it.
        """
        ours, shared = self._sources(node)
        unknown = [name for name in given if not is_known(name)]
        wrong = [name for name in unknown if name not in shared or name in ours]
        if wrong:
            raise ValueError(unknown_names({name: ours.get(name, "") for name in wrong}))
        for other, name in self.assigned:
            if other and full_name(other) != node:
                raise ValueError(
                    f"-p {one_line(f'{other}:{name}', MAX_NAME)} is for {full_name(other)}, this is {node}"
                )
        named = [file for file in self.files if not file.is_launch_made]
        others = [problem for file in named if (problem := file.problem_for(node))]
        if others and len(others) == len(named):
            raise ValueError(others[0])
        known = {name: shared[name] for name in unknown}
        near = {name: source for name, source in known.items() if _meant(name)}
        far = {name: source for name, source in known.items() if name not in near}
        return GivenNotes(
            misspelt=f"{unknown_names(near)}. {IGNORED}" if near else "",
            ignored=(*others, *([f"{unknown_names(far)}. {IGNORED}"] if far else ())),
        )

    def _sources(self, node: str) -> tuple[dict[str, str], dict[str, str]]:
        """Where each name was given to this node alone, and where to nodes of several names."""
        ours: dict[str, str] = {name: "-p" for _, name in self.assigned}
        shared: dict[str, str] = {}
        for file in self.files:
            for section in file.of(node):
                to = shared if section.is_shared and not file.is_launch_made else ours
                to |= dict.fromkeys(section.values, "" if file.is_launch_made else str(file.path))
        return ours, shared


def _sides(option: str, rule: str, example: str) -> tuple[str, str]:
    """Both sides of ``NAME:=VALUE``. rcl's own refusal says neither what is missing nor where."""
    left, sign, right = rule.partition(":=")
    if not (left and sign):
        meant = rule.replace("=", ":=", 1) if not sign and 0 < rule.find("=") < len(rule) - 1 else ""
        hint = f"did you mean {option} {one_line(meant, MAX_NAME)}?" if meant else f"write it as in {option} {example}"
        raise ValueError(f"{option} {one_line(rule, MAX_NAME)} is not NAME:=VALUE; {hint}")
    return left, right


@dataclass(frozen=True)
class GivenNotes:
    """What is wrong with the given parameters without keeping the node from starting.

    Attributes:
        misspelt: Names given to nodes of several names that this node has almost; "" for none.
        ignored: Files for other nodes beside one for this node, and further names that this node does not have.
    """

    misspelt: str = ""
    ignored: tuple[str, ...] = ()


def check_file(path: Path, node: str) -> None:
    """Check a parameter file before a node of the full name ``node`` is started with it.

    Raises:
        ValueError: it is missing, is no parameter file, has nothing for the node, or a name for it alone that does not
            exist.
    """
    file = ParameterFile.read(path)
    GivenParameters((file,)).check(node, file.values_for(node))


def check_words(words: Sequence[str]) -> None:
    """Check that a command line has nothing outside of ``--ros-args``, which the node would ignore.

    Args:
        words: The command line without the name of the program.

    Raises:
        ValueError: there is something; names it and says what to write.
    """
    stray = [word for word, _, inside in _words(words) if not inside]
    if stray:
        given = one_line(" ".join(stray), MAX_NAME)
        raise ValueError(
            f"{given} is not read: write --ros-args before it, as in --ros-args -p samples:=3 --params-file FILE"
        )


def is_known(name: str) -> bool:
    """Whether the node has a parameter ``name``, its own or one of rclpy."""
    return name in KNOWN or name.startswith(ROSS_OWN_PREFIX)


def unknown_names(sources: dict[str, str]) -> str:
    """Message about names that are no parameters, with the nearest names. ``sources``: where each was given, or ""."""
    said = []
    for name, source in sources.items():
        near = _meant(name)
        notes = "; ".join(note for note in (source, f"did you mean {near}?" if near else "") if note)
        said.append(one_line(name, MAX_NAME) + (f" ({notes})" if notes else ""))
    more = f" and {len(said) - MOST} more" if len(said) > MOST else ""
    one = "there is no parameter" if len(said) == 1 else "there are no parameters"
    return f"{one} {', '.join(said[:MOST])}{more}; docs/node.md lists them"


def _meant(name: str) -> str:
    return nearest(name, KNOWN, likeness=MISSPELT)


def _ros_options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each word between ``--ros-args`` and ``--`` with the word after it."""
    return ((word, after) for word, after, inside in _words(arguments) if inside)


def _words(arguments: Sequence[str]) -> Iterator[tuple[str, str, bool]]:
    """Each word but ``--ros-args`` and ``--``, the word after it, and whether it lies between those two."""
    inside = False
    for word, after in zip(arguments, [*arguments[1:], ""], strict=False):
        if word in ("--ros-args", "--"):
            inside = word == "--ros-args"
        else:
            yield word, after, inside

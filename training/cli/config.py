"""Configurations: the options of a command as a frozen dataclass, read from the command line, a YAML file, or both.

A command is a function of one :class:`Configuration`. :func:`as_command` gives it one option (or argument) for each
field, with type, help text and range from the field's ``Annotated``, and the field's default. ``--config FILE`` reads
values from a flat YAML file (``name: value``, names as those of the options, with "_" for "-"). Options on the command
line take precedence over the file, the file over the defaults. :func:`recorded` writes the configuration of a run
beside its results, as a file for ``--config``.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, cast

import typer
from typer.models import ParameterInfo

from acs_core.arguments import MAX_COUNT, described, flag, items, one_of, path, real, text, whole
from acs_core.artifacts.json_io import Limits, read_bytes
from acs_core.output import check_target, sealed_text, write_text
from acs_core.output_folder import OutputFolder
from acs_core.plain_text import one_line
from training.settings import RUN_FILE

LIMITS = Limits(1 << 20, 100_000)
MOST_ITEMS = 10_000  # of a list
MOST_DIGITS = 100  # Python refuses thousands of digits, with a message about its own settings
LARGEST = 1e300
CONFIG_HELP = "YAML file with values for these options; those given here win."
# Scalars without quotes, as YAML 1.2 reads them; all others are text.
_NULL, _BOOLS = ("", "~", "null"), {"true": True, "false": False}
_WHOLE = re.compile(r"[-+]?[0-9]+")
_REAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", re.IGNORECASE)
_BARE = re.compile(r"[\w./~][\w./~@+-]*( [\w./~@+-]+)*", re.ASCII)  # text that needs no quotes


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Base class of the commands' configurations. A field ``map_side`` is the option ``--map-side``.

    Fields are bool, int, float, str, Path, a StrEnum, one of these or None, or a tuple of them (``tuple[int, ...]`` is
    an option that may be repeated). ``config`` is the file that values were read from.
    """

    command: ClassVar[str]
    config: Path | None = None

    @property
    def full_command(self) -> str:
        """Full name of the command, for example ``acs-train fit``."""
        return f"acs-train {self.command}"

    @property
    def run_file(self) -> str:
        """Name of the run file in an output folder, for example ``fit.run.yaml``."""
        return self.command + RUN_FILE

    def to_yaml(self) -> str:
        """Return all values, including defaults, as YAML text for ``--config``. Paths are written as given. The first
        line has the SHA-256 of the others, so that edited run files are not replaced."""
        lines = [
            f"# To repeat the run: {self.full_command} --config FILE. Relative paths start from the working directory.",
            f"command: {self.command}",
        ]
        lines += [f"{name}: {_yaml(getattr(self, name))}" for name in options_of(type(self))]
        return sealed_text("\n".join(lines) + "\n", self.full_command)


C = TypeVar("C", bound=Configuration)


def options_of(configuration: type[Configuration]) -> dict[str, tuple[Any, ParameterInfo]]:
    """Return the fields of a configuration that are options or arguments, in order: type and typer's description."""
    hints = typing.get_type_hints(configuration, include_extras=True)
    found = {}
    for field in dataclasses.fields(configuration):
        if typing.get_origin(hints[field.name]) is Annotated:
            kind, info = typing.get_args(hints[field.name])
            found[field.name] = kind, info
    return found


def configuration_of(function: Callable[[C], None]) -> type[C]:
    """Return the configuration class of a command."""
    (found,) = (hint for name, hint in typing.get_type_hints(function).items() if name != "return")
    kind: type[C] = found
    return kind


def as_command(function: Callable[[C], None]) -> Callable[..., None]:
    """Convert ``function`` of one configuration to a function for typer, with a parameter for each option and
    ``config``."""
    configuration = configuration_of(function)
    options = options_of(configuration)
    defaults = {field.name: field.default for field in dataclasses.fields(configuration)}

    def take(context: typer.Context, param: typer.CallbackParam, value: Path | None) -> Path | None:
        if value is not None:
            try:
                context.default_map = read_config(value, configuration)
            except ValueError as error:
                raise typer.BadParameter(f"{value}: {error}", context, cast(Any, param)) from error
        return value

    def run(**values: Any) -> None:
        from transformers.utils import logging  # late: --help and usage errors need not wait for it

        logging.disable_progress_bar()  # acs-train shows progress bars of its own
        given: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        function(configuration(**given))

    parameters = []
    for name, (kind, info) in options.items():
        default = inspect.Parameter.empty if defaults[name] is dataclasses.MISSING else defaults[name]
        if _repeated(kind):
            kind = list[typing.get_args(kind)[0]]  # type: ignore[misc]
            default = list(default) if isinstance(default, tuple) else default
        parameters.append(_parameter(name, default, Annotated[kind, info]))
    # is_eager: the file is read before the other options look for their defaults
    config = Annotated[Path | None, typer.Option(help=CONFIG_HELP, is_eager=True, callback=take, metavar="FILE")]
    parameters.append(_parameter("config", None, config))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__name__, run.__doc__, run.__module__ = function.__name__, function.__doc__, function.__module__
    return run


def read_config(file: Path, configuration: type[Configuration]) -> dict[str, Any]:
    """Read the values of the YAML file ``file`` for options of ``configuration``, as plain Python values.

    Raises:
        ValueError: the file cannot be read, is larger than 1 MiB, or holds anything but names with plain values or
            lists of them; a name is repeated or not an option; a value is of the wrong type or out of its range. The
            message names the key.
    """
    options = options_of(configuration)
    found = _parse(read_bytes(file, LIMITS))
    command = _value(found.pop("command", configuration.command))
    if command != configuration.command:
        raise ValueError(f"it is for the command {described(command)}, not for {configuration.command}")
    values = {}
    for name, value in found.items():
        if name not in options:
            near = difflib.get_close_matches(name.replace("-", "_"), options, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(options)}"
            raise ValueError(f"there is no option {described(name)}: {hint}")
        try:
            values[name] = _checked(name, value, *options[name])
        except TypeError as error:
            raise ValueError(str(error)) from error
    return values


@contextmanager
def recorded(run: Configuration, folder: OutputFolder | None, *files: Path | None) -> Iterator[None]:
    """Write the run file of ``run`` when the block, which makes the results, ends without an error.

    The file is written into ``folder`` ("fit.run.yaml"); without one, beside the first of ``files`` that is not None
    ("table.json.run.yaml"); without either, not at all. A block that replaces the results of an earlier run in
    ``folder`` removes the run file of that in the same move.

    Raises:
        OutputError: before the block: the folder may not be used, or a file of the user has the name of the run file.
            After it: such a file was created meanwhile.
        OSError: the file cannot be written.
    """
    file = next((file for file in files if file is not None), None)
    beside = file.with_name(file.name + RUN_FILE) if file is not None and folder is None else None
    if folder is not None:
        folder.check()
    elif beside is not None and not _holds(beside, run.to_yaml()):
        check_target(beside, [run.config] if run.config else [])
    yield
    if folder is not None:
        with folder, folder.stage(run.run_file) as staged:
            (staged / run.run_file).write_text(run.to_yaml(), encoding="utf-8")
    elif beside is not None and file is not None and file.is_file():  # no device
        write_text(beside, run.to_yaml(), guarded=True)


def _holds(file: Path, content: str) -> bool:
    return file.is_file() and file.read_bytes() == content.encode()


@dataclass(frozen=True)
class _Unquoted:
    """Scalar without quotes and its line. Its value depends on the option's type: ``007`` may be text or a number."""

    text: str
    where: str


def _value(value: object, kind: Any = None) -> Any:
    """Return ``value``, an :class:`_Unquoted` as its own text if ``kind`` is text or a path and it is not null."""
    if not isinstance(value, _Unquoted):
        return value
    if kind in (str, Path) and value.text.lower() not in _NULL:
        return value.text
    return _plain(value.text, value.where)


def _parameter(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _repeated(kind: Any) -> bool:
    """Whether ``kind`` is a tuple of any length."""
    return typing.get_origin(kind) is tuple and typing.get_args(kind)[-1] is Ellipsis


def _checked(name: str, value: object, kind: Any, info: ParameterInfo) -> Any:
    """Return ``value`` of a YAML file as type ``kind``, checked against the range of ``info``.

    Raises:
        TypeError, ValueError: it does not fit; names ``name``.
    """
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        kind = next(part for part in typing.get_args(kind) if part is not types.NoneType)
        if _value(value, kind) is None:
            return None
    value = _value(value, kind)
    if typing.get_origin(kind) is tuple:
        part, *rest = typing.get_args(kind)
        least, most = (0, MOST_ITEMS) if _repeated(kind) else (1 + len(rest), 1 + len(rest))
        found = items(name, value, most, "values", least=least)
        return [_checked(f"{name}[{i}]", one, part, info) for i, one in enumerate(found)]
    if kind is bool:
        return flag(name, value)
    if kind is int:
        low, high = info.min, info.max
        return whole(name, value, -MAX_COUNT if low is None else int(low), MAX_COUNT if high is None else int(high))
    if kind is float:
        low, high = info.min, info.max
        return real(name, value, -LARGEST if low is None else low, LARGEST if high is None else high)
    if issubclass(kind, StrEnum):
        return one_of(name, value, [member.value for member in kind])
    if kind is Path:
        return str(path(name, value))
    return text(name, value)


def _parse(raw: bytes) -> dict[str, Any]:
    """Parse the names and values of a flat YAML mapping event by event, without creating objects, references or
    nesting. Scalars without quotes are returned as :class:`_Unquoted`.

    Raises:
        ValueError: ``raw`` is not such a mapping; names the line.
    """
    import yaml  # takes 40 ms, and only --config needs it

    found: dict[str, Any] = {}
    name: str | None = None
    values: list[Any] | None = None
    inside = False
    try:
        for event in yaml.parse(raw.decode(), Loader=yaml.SafeLoader):
            where = f"line {event.start_mark.line + 1}"
            if getattr(event, "anchor", None) is not None and not isinstance(event, yaml.AliasEvent):
                raise ValueError(f"{where}: anchors (&{event.anchor}) are not read")
            if getattr(event, "tag", None) is not None:
                raise ValueError(f"{where}: tags ({event.tag}) are not read")
            if isinstance(event, (yaml.MappingStartEvent, yaml.MappingEndEvent)):
                if inside and isinstance(event, yaml.MappingStartEvent):
                    raise ValueError(f"{where}: a value must be a plain one or a list of them")
                inside = isinstance(event, yaml.MappingStartEvent)
            elif isinstance(event, yaml.DocumentStartEvent):
                if name is not None or found:
                    raise ValueError(f"{where}: there must be one document")
            elif isinstance(event, (yaml.StreamStartEvent, yaml.StreamEndEvent, yaml.DocumentEndEvent)):
                continue
            elif isinstance(event, yaml.AliasEvent):
                raise ValueError(f"{where}: references (*{event.anchor}) are not read")
            elif isinstance(event, yaml.ScalarEvent):
                value = _Unquoted(event.value, where) if event.implicit[0] else event.value
                if not inside:
                    if event.value.lower() not in _NULL or not event.implicit[0] or found:
                        raise ValueError("it must hold names with values, as in `epochs: 3`")
                elif values is not None:
                    values.append(value)
                elif name is None:
                    name = _name(event.value, found, where)
                else:
                    found[name], name = value, None
            elif isinstance(event, yaml.SequenceStartEvent):
                if name is None or values is not None:
                    raise ValueError(f"{where}: a list must be the value of a name, and hold plain values")
                values = []
            elif name is not None and values is not None:
                found[name], name, values = tuple(values), None, None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark else ""
        problem = one_line(str(getattr(error, "problem", None) or error))
        raise ValueError(f"it is not valid YAML: {problem}{place}") from error
    return found


def _name(value: str, found: Mapping[str, Any], where: str) -> str:
    if value in found:
        raise ValueError(f"{where}: {described(value)} stands there twice")
    return value


def _plain(value: str, where: str = "") -> Any:
    """Return the value of a scalar without quotes.

    Raises:
        ValueError: it is a number of more than 100 digits.
    """
    if value.lower() in _NULL:
        return None
    if value.lower() in _BOOLS:
        return _BOOLS[value.lower()]
    if _WHOLE.fullmatch(value):
        if len(value) > MOST_DIGITS:
            raise ValueError(f"{where}: a number of {len(value)} digits")
        return int(value)
    if _REAL.fullmatch(value):
        return float(value.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return value


def _yaml(value: Any) -> str:
    """Return ``value`` in YAML notation, on one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    written = str(value)
    bare = _BARE.fullmatch(written) and len(written) <= MOST_DIGITS and _plain(written) == written
    return written if bare else f'"{"".join(map(_escaped, written))}"'


def _escaped(character: str) -> str:
    if character.isprintable() and character not in '"\\':
        return character
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"

"""Types of command-line options: finite numbers in their range, and non-empty strings.

The checks are those of :mod:`acs_core.arguments`; argparse and typer add the option's name and exit with code 2.
"""

from __future__ import annotations

import argparse
import difflib
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from acs_core.arguments import MAX_COUNT, described, real, spelled, whole
from acs_core.plain_text import one_line, shorten

Parse = Callable[[str], Any]
MOST_DIGITS = 100  # int() refuses thousands of digits with a message about Python's own limit


def whole_option(low: int, high: int = MAX_COUNT) -> Parse:
    """Return the ``type`` of an argparse option that takes an integer from ``low`` to ``high``."""

    def parse(text: str) -> int:
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= MOST_DIGITS):
            wanted = f"a whole number from {spelled(low)} to {spelled(high)}"
            raise argparse.ArgumentTypeError(f"must be {wanted}, got {described(text)}")
        return _said(lambda: whole("", int(text), low, high))

    return parse


def real_option(low: float, high: float, above: bool = False) -> Parse:
    """Return the ``type`` of an argparse option that takes a finite number; see :func:`acs_core.arguments.real`."""

    def parse(text: str) -> float:
        try:
            value = float(text if text.isascii() and "_" not in text else "no number")
        except ValueError:
            wanted = f"{'above' if above else 'from'} {low:g}{', at most' if above else ' to'} {high:g}"
            raise argparse.ArgumentTypeError(f"must be a number {wanted}, got {described(text)}") from None
        return _said(lambda: real("", value, low, high, above))

    return parse


def _said(check: Callable[[], Any]) -> Any:
    try:
        return check()
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).strip()) from None


def whole_or_auto(low: int, high: int) -> Callable[[str], int | None]:
    """Return the ``type`` of an argparse option that takes an integer from ``low`` to ``high``, or "auto" (None)."""
    number = whole_option(low, high)

    def parse(text: str) -> int | None:
        try:
            return None if text == "auto" else int(number(text))
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{error}; or auto") from None

    return parse


def empty_option(arguments: Iterable[str], may_be_empty: Iterable[str] = ()) -> str:
    """Return an error message if an argument of a command line is empty, else "".

    Args:
        arguments: the arguments.
        may_be_empty: options that accept an empty value.
    """
    before = ""
    for argument in arguments:
        name, sign, value = argument.partition("=")
        if name.startswith("--") and sign and not value and name not in may_be_empty:
            return f"{name} is empty: give a value, or leave it out"
        if not argument and before not in may_be_empty:
            what = f"{before} is empty" if before.startswith("-") else "an argument is empty"
            return f"{what}: give a value, or leave it out"
        before = argument
    return ""


class StrictParser(argparse.ArgumentParser):
    """An argparse parser that refuses empty values and abbreviated options and does not reformat its description.

    Args:
        may_be_empty: Options that accept an empty value, like ``("--truth",)``.
        options: Keyword arguments of :class:`argparse.ArgumentParser`.
    """

    def __init__(self, *, may_be_empty: Iterable[str] = (), **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)
        self._may_be_empty = tuple(may_be_empty)
        self.add_argument("--version", action=_ShowVersion, nargs=0, help="show the version of acs and exit")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the arguments as argparse does; wrong usage ends the process with exit code 2."""
        given = sys.argv[1:] if args is None else list(args)
        if problem := empty_option(given, self._may_be_empty):
            self.error(problem)
        found, unknown = self.parse_known_args(given, namespace)
        if unknown:
            self.error(self._not_known(unknown))
        return found

    def error(self, message: str) -> NoReturn:
        """End the process with exit code 2 after one line, without the list of all options before it."""
        self.exit(2, f"{self.prog}: error: {one_line(message)} (all options: {self.prog} --help)\n")

    def _not_known(self, words: Sequence[str]) -> str:
        known = [option for action in self._actions for option in action.option_strings]
        near = difflib.get_close_matches(words[0].partition("=")[0], known, 1) if words[0].startswith("-") else []
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"unrecognized arguments: {shorten(' '.join(words))}{hint}"


class _ShowVersion(argparse.Action):
    """Print the version when the option is met, which is read only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        """End the process with exit code 0."""
        print(version_line(parser.prog))
        parser.exit()


def version_line(command: str) -> str:
    """Return the name of a command with the version of acs, such as "acs-ground 1.0.0"."""
    from acs_core import __version__

    return f"{command} {__version__}"


def _show_version(ctx: typer.Context, wanted: bool) -> None:
    if wanted:
        print(version_line(ctx.find_root().info_name or ""))
        raise typer.Exit


_VERSION = typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version of acs and exit.")


def _with_version(version: Annotated[bool, _VERSION] = False) -> None:
    """Nothing: typer makes the option out of its argument."""


def _version_option() -> Any:
    app = typer.Typer(add_completion=False)
    app.command()(_with_version)
    [option] = typer.main.get_command(app).params
    option.expose_value = False
    return option


class _Strict:
    """What :class:`StrictCommand` and :class:`StrictGroup` add to the class of typer beside it."""

    @cached_property
    def _version(self) -> Any:
        return _version_option()

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, with ``--version`` for the command that the user started."""
        own: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        return own + ([self._version] if ctx.parent is None else [])

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments as click does.

        Raises:
            typer.BadParameter: an argument is refused.
        """
        _refuse_empty(ctx, args)
        rest: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]
        _refuse_senseless(self, ctx)
        return rest


class StrictCommand(_Strict, TyperCommand):
    """A typer command that also refuses NaN, infinities, empty strings, and integers above 2^31 - 1."""


class StrictGroup(_Strict, TyperGroup):
    """A typer group with the checks of :class:`StrictCommand` for its own options, and ``--version``."""


class StrictTyper(typer.Typer):
    """A typer app of :class:`StrictCommand` and :class:`StrictGroup`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cls=StrictGroup, add_completion=False, pretty_exceptions_enable=False, **options)

    def command(  # type: ignore[override]
        self, name: str | None = None, **options: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Return a decorator that adds a :class:`StrictCommand`; see typer."""
        return super().command(name, cls=StrictCommand, **options)


def _refuse_empty(ctx: Any, args: list[str]) -> None:
    if problem := empty_option(args):
        raise typer.BadParameter(problem, ctx=ctx)


def _refuse_senseless(command: Any, ctx: Any) -> None:
    for param in command.params:
        for value in _flat(ctx.params.get(param.name)):
            if isinstance(value, float) and not math.isfinite(value):
                raise typer.BadParameter(f"{value} is no finite number", ctx=ctx, param=param)
            if type(value) is int and abs(value) > MAX_COUNT:
                allowed = f"must be at most {spelled(MAX_COUNT)}, got {described(value)}"
                raise typer.BadParameter(allowed, ctx=ctx, param=param)


def _flat(value: Any) -> list[Any]:
    return [v for part in value for v in _flat(part)] if isinstance(value, (list, tuple)) else [value]

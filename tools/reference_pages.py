"""Write the reference pages docs/api.md and docs/commands.md from the docstrings and the options of the commands.

Run it after a change of either; a test compares the pages with what this program would write.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import typer

import acs_core
from acs_core.cli_options import make_parser as acs_ground
from acs_ros.bags.bag_player import make_parser as bag_player
from acs_ros.client import FoundObject, GroundingClient, GroundReply
from acs_ros.replay.options import make_parser as acs_replay
from acs_ros.stress.bench_cli import app as acs_bench
from acs_ros.stress.load_cli import app as acs_load
from acs_ros.stress.soak_cli import app as acs_soak
from training.cli.main import app as acs_train

DOCS = Path(__file__).resolve().parent.parent / "docs"
HEADER = "<!-- written by tools/reference_pages.py; do not edit -->\n"
API_HEAD = """# Python API

What `from acs_core import ...` gives, and the clients of `acs_ros.client`. Tutorial: [notebooks](notebooks/README.md);
the node's client in use: [client.md](client.md).
"""
COMMANDS_HEAD = """# Commands

Options of every command, as `--help` shows them. Each also has `--help` and `--version`. Wrong usage ends with exit
code 2, a failure with 1, each with one line on standard error. Where they write:
[security.md](security.md#where-commands-write).
"""
PARSERS = (acs_ground, acs_replay, bag_player)
APPS = {"acs-train": acs_train, "acs-bench": acs_bench, "acs-load": acs_load, "acs-soak": acs_soak}
ROLE = re.compile(r":(?:class|func|meth|data|mod|attr):`~?([^`]+)`")


def api_page() -> str:
    """Return the page of the public classes and functions."""
    from acs_core.request import GroundOptions  # not exported by name, but the options of every call

    names = sorted(set(acs_core.__all__) - {"__version__"}, key=lambda n: (n != "Grounder", n != "GroundingResult", n))
    objects = [getattr(acs_core, name) for name in names]
    shown = (*objects[:2], GroundOptions, *objects[2:], GroundingClient, GroundReply, FoundObject)
    return HEADER + API_HEAD + "".join(map(_documented, shown))


def _documented(thing: Any) -> str:
    title = f"\n## {thing.__name__}\n\n"
    source = f"`{thing.__module__}.{thing.__qualname__}`\n\n"
    text = title + source + _signature(thing) + _prose(thing.__doc__)
    if not inspect.isclass(thing):
        return text
    for name, member in inspect.getmembers(thing):
        if name.startswith("_") or not _is_ours(member):
            continue
        plain = member.fget if isinstance(member, property) else member
        doc = inspect.getdoc(plain)
        if not doc:
            continue
        text += f"\n### {thing.__name__}.{name}\n\n"
        text += ("" if isinstance(member, property) else _signature(plain)) + _prose(doc)
    return text


def _is_ours(member: Any) -> bool:
    function = member.fget if isinstance(member, property) else member
    return (inspect.isfunction(function) or inspect.ismethod(function)) and function.__module__.startswith("acs_")


def _signature(thing: Any) -> str:
    """The signature in a block, with one argument on a line where it is long; "" for enumerations and records."""
    if inspect.isclass(thing) and "__init__" not in vars(thing):
        return ""
    try:
        text = f"{thing.__name__}{inspect.signature(thing)}"
    except (TypeError, ValueError):
        return ""
    text = re.sub(r"(: |-> )(['\"])(.*?)\2(?=,|\)| =|$)", r"\1\3", text)  # annotations, which are kept as text
    if len(text) > 100:
        inner = re.sub(r", (?=[\w*]+(: |=|,|\)))", ",\n    ", text.partition("(")[2].rpartition(")")[0])
        text = f"{text.partition('(')[0]}(\n    {inner}\n){text.rpartition(')')[2]}"
    return f"```python\n{text}\n```\n\n"


def _prose(doc: str | None) -> str:
    """A docstring as Markdown: its sections as bold words with lists, references and double backticks as code."""
    lines: list[str] = []
    section = fenced = False
    for line in inspect.cleandoc(doc or "").splitlines():
        text = ROLE.sub(lambda found: f"`{found[1]}`", line).replace("``", "`")
        if text and not text.startswith("    "):
            lines += ["```", ""] if fenced else []
            section = fenced = False
        if re.fullmatch(r"(Args|Returns|Raises|Attributes|Yields):", text):
            lines += ["", f"**{text.rstrip(':')}**", ""]
            section = True
        elif section and (entry := re.fullmatch(r" {4}(\w[\w ,.]*): (.*)", text)):
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        elif section:
            lines.append(f"  {text.strip()}".rstrip())
        elif text.startswith("    "):
            lines += [] if fenced else ["```python"]
            lines.append(text[4:])
            fenced = True
        else:
            lines.append(text)
    text = "\n".join([*lines, *(["```"] if fenced else [])]).strip()
    return re.sub(r"\n{3,}", "\n\n", text).replace("\n\n```\n", "\n```\n") + "\n"


def commands_page() -> str:
    """Return the page of the commands and their options."""
    parts = [_of_parser(make()) for make in PARSERS]
    for name, typed in APPS.items():
        app = typer.main.get_command(typed)
        commands = getattr(app, "commands", {})
        parts.append(f"\n## {name}\n\n{_sentence(app.help)}\n")
        if not commands or [p for p in app.params if p.name not in ("help", "version")]:
            parts.append(_table([_of_param(p) for p in app.params]))
        for command, what in commands.items():
            nested = getattr(what, "commands", {command: what})
            for inner, leaf in nested.items():
                title = f"{name} {command}" + ("" if inner == command else f" {inner}")
                parts.append(f"\n### {title}\n\n{_sentence(leaf.help)}\n{_table([_of_param(p) for p in leaf.params])}")
    return HEADER + COMMANDS_HEAD + "".join(parts)


def _of_parser(parser: argparse.ArgumentParser) -> str:
    rows = []
    for action in parser._actions:
        if action.dest in ("help", "version"):
            continue
        name = ", ".join(action.option_strings) or str(action.metavar)
        rows.append((name, (action.help or "") % {"default": action.default}))
    return f"\n## {parser.prog}\n\n{_sentence(parser.description)}\n{_table(rows)}"


def _of_param(param: Any) -> tuple[str, str]:
    default = param.default
    shown = f" Default: {default}." if isinstance(default, (int, float, str)) and default not in ("", False) else ""
    name = ", ".join([*param.opts, *param.secondary_opts]) if param.param_type_name == "option" else param.name.upper()
    return name, f"{param.help or ''}{shown}"


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


def _table(rows: list[tuple[str, str]]) -> str:
    if not rows:
        return ""
    cells = [f"| `{name}` | {' '.join(text.split()).replace('|', chr(92) + '|')} |" for name, text in rows]
    return "\n".join(["", "| option | |", "|---|---|", *cells, ""])


PAGES = {"api.md": api_page, "commands.md": commands_page}


def main() -> int:
    """Write both pages; return exit status 0."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
        print(f"wrote docs/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

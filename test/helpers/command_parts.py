"""The commands of acs, found in its source: none can be left out of a test that goes through all of them."""

import ast
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {"acs_core": ROOT, "acs_ros": ROOT, "training": ROOT, "fuzz": ROOT / "test"}
PARSERS = ("ArgumentParser", "StrictParser")
MAKER = "make_parser"


@cache
def modules() -> dict[str, ast.Module]:
    """The dotted name of every module of acs, and what it holds."""
    found = {}
    for room, above in ROOMS.items():
        for file in sorted((above / room).rglob("*.py")):
            name = ".".join(file.relative_to(above).with_suffix("").parts).removesuffix(".__init__")
            found[name] = ast.parse(file.read_text())
    return found


def calls(tree: ast.AST, *names: str) -> list[ast.Call]:
    """The calls of functions or methods of these names."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (getattr(node.func, "id", None) in names or getattr(node.func, "attr", None) in names)
    ]


def argparse_parsers() -> dict[str, Callable]:
    """The module of every argparse parser, and its function that makes it."""
    using = [name for name, tree in modules().items() if calls(tree, *PARSERS)]
    return {name: getattr(import_module(name), MAKER) for name in using}


def argparse_commands() -> dict[str, tuple[Callable, Callable]]:
    """``main`` and the maker of the parser of every argparse command, by its name."""
    found = {}
    for name, make in argparse_parsers().items():
        with_main = [name] if has_main(name) else [user for user in modules() if has_main(user) and uses(user, name)]
        assert len(with_main) == 1, f"{with_main} parse with {name}.{MAKER}"
        found[make().prog] = import_module(with_main[0]).main, make
    return found


def typer_commands() -> set[str]:
    """The modules with an app of typer and its ``main``."""
    return {name for name, tree in modules().items() if calls(tree, "Typer", "StrictTyper") and has_main(name)}


def has_main(name: str) -> bool:
    """Whether a module defines ``main``."""
    return any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in modules()[name].body)


def uses(name: str, parser: str) -> bool:
    """Whether a module imports the maker of the module ``parser``."""
    return any(
        isinstance(node, ast.ImportFrom) and node.module == parser and MAKER in {alias.name for alias in node.names}
        for node in ast.walk(modules()[name])
    )


def console_scripts() -> dict[str, str]:
    """The functions of every ``commands.py`` ("acs_ros.commands:acs_ground"), the console scripts of setup.py, and the
    modules whose ``main()`` they start."""
    text = (ROOT / "setup.py").read_text()
    found = {}
    for name, tree in modules().items():
        if not name.endswith(".commands"):
            continue
        for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
            (started,) = calls(function, "run")
            assert f"{name}:" in text, f"setup.py has no script of {name}"
            found[f"{name}:{function.name}"] = ast.literal_eval(started.args[0])
    return found

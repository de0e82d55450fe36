"""``acs-replay``: evaluates what a robot would have published about the frames of a bag."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rclpy.utilities import remove_ros_args
from rich.console import Console

from acs_core.errors import AcsError, PhraseError, SelectorError
from acs_core.oserrors import FULL, os_problem
from acs_ros.bags import BagError
from acs_ros.grounder_source import GrounderLike, GrounderLoader, load_grounder
from acs_ros.node_client import NodeTrouble
from acs_ros.parameters import Settings
from acs_ros.replay.comparing import compare_files
from acs_ros.replay.extract import extract
from acs_ros.replay.options import given_parameters, make_parser, usage_problem
from acs_ros.replay.session import Session
from acs_ros.replay.settings import make_settings
from acs_ros.replay.stopping import Stop
from acs_ros.replay.storage import Bag

FAILURES = (AcsError, BagError, NodeTrouble)


def main(arguments: Sequence[str] | None = None, load: GrounderLoader | None = None) -> int:
    """Run the command on the model that ``load`` gives, by default the one that the options name; the exit code."""
    parser = make_parser()
    options = parser.parse_args(remove_ros_args(sys.argv)[1:] if arguments is None else list(arguments))
    problem = usage_problem(options)
    if problem:
        parser.error(problem)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    try:
        with Stop() as stop:
            return _run(options, parser, console, stop, load)
    except (SelectorError, PhraseError) as error:
        parser.error(str(error))
    except FAILURES as error:
        print(f"acs-replay: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except OSError as error:
        kept = ": it goes on from the answers that it has" if error.errno in FULL else ""
        print(f"acs-replay: {os_problem(error, options.out or '')}{kept}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("acs-replay: stopped", file=sys.stderr)
        return 130


def _run(
    options: argparse.Namespace,
    parser: argparse.ArgumentParser,
    console: Console,
    stop: Stop,
    load: GrounderLoader | None,
) -> int:
    if options.json is not None and not options.json.parent.is_dir():
        parser.error(f"--json: the folder {options.json.parent} does not exist")
    if options.compare:
        return compare_files(options.compare[0], options.compare[1], console, options.json)
    try:
        settings = make_settings(options.params_file, given_parameters(options), options.node)
    except ValueError as error:
        parser.error(str(error))
    if load is None and (not options.live or options.start_node):
        from acs_core.selection import check_name  # late: torch takes seconds, and --help needs none

        check_name(settings.selector)
    options.out = (
        options.out or Path("replay_output") / f"{options.bag.resolve().stem}{'-live' if options.live else ''}"
    )
    with Bag(options.bag) as bag:
        if options.extract:
            return extract(bag, options, console)
        return Session(bag, options, settings, console, stop).run(load or _load)


def _load(settings: Settings) -> GrounderLike:
    """The model, without progress bars of others among our own."""
    from transformers.utils import logging  # late: it takes seconds

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return load_grounder(settings)


if __name__ == "__main__":
    sys.exit(main())

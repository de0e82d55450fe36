"""What ``acs-replay`` does once its options are read: answers the queries of a bag, or compares two evaluations."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from acs_core.artifacts.model_name import check_model_name
from acs_core.errors import OutputError
from acs_core.evaluation.compare import compare, comparison_tables
from acs_core.evaluation.storage import load
from acs_core.evaluation.table import print_tables, to_json
from acs_core.output import check_target, write_json
from acs_core.plain_text import one_line
from acs_ros.bags.reader import Bag
from acs_ros.node.model_loader import GrounderLike, GrounderLoader, load_grounder
from acs_ros.node.parameter_table import MODEL
from acs_ros.node.parameters import Settings
from acs_ros.replay.material import topics_of
from acs_ros.replay.options import given_parameters
from acs_ros.replay.output import extract
from acs_ros.replay.session import Session
from acs_ros.replay.settings import make_settings
from acs_ros.stop_signals import StopSignals

DEFAULT_SELECTOR = next(spec.default for spec in MODEL if spec.name == "selector")
SHOWN = 10  # changed questions of each kind


def run(
    options: argparse.Namespace,
    parser: argparse.ArgumentParser,
    console: Console,
    stop: StopSignals,
    load_model: GrounderLoader | None,
) -> int:
    """Run the command with valid ``options``; returns the exit code. ``load_model`` loads the model, by default the one
    that they name. ``stop`` ends it early. Usage errors go to ``parser``.

    Raises:
        AcsError, BagError, NodeTrouble: the bag, a file, the model or the node cannot be used.
        OSError: a file cannot be read or written.
    """
    if options.json is not None:
        try:
            check_target(options.json)
        except OutputError as error:
            parser.error(f"--json: {error}")
    if options.compare:
        return compare_files(options.compare[0], options.compare[1], console, options.json)
    try:
        settings = make_settings(options.params_file, given_parameters(options), options.node)
    except ValueError as error:
        parser.error(one_line(str(error)))
    options.out = (
        options.out or Path("replay_output") / f"{options.bag.resolve().stem}{'-live' if options.live else ''}"
    )
    with Bag(options.bag) as bag:
        if options.extract:
            return extract(bag, options, console)
        topics_of(bag, options)  # what is wrong with the bag is said before torch takes its seconds
        if load_model is None and (not options.live or options.start_node):
            check_model_name(settings.model)
            if settings.selector != DEFAULT_SELECTOR:  # before a long bag is read
                from acs_core.selection.registry import check_name

                check_name(settings.selector, auto=True)
        session = Session(bag, options, settings, console, stop)
        material = session.read()
        return session.run(material, load_model or _load)


def _load(settings: Settings) -> GrounderLike:
    """Load the model without the progress bars of transformers."""
    from transformers.utils import logging  # late: it takes seconds

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return load_grounder(settings)


def compare_files(first: Path, second: Path, console: Console, json_file: Path | None) -> int:
    """Print the differences of two evaluations on the questions that both have; returns the exit code. A folder stands
    for the ``evaluation.json`` in it.

    Raises:
        EvaluationError: a file cannot be read.
        ComparisonError: the two have nothing in common.
        OSError: ``json_file`` cannot be written.
    """
    files = [file / "evaluation.json" if file.is_dir() else file for file in (first, second)]
    found = compare(load(files[0]), load(files[1]))
    print_tables(comparison_tables(found, SHOWN), console)
    if json_file is not None:
        write_json(json_file, {"tables": to_json(comparison_tables(found))}, "acs-replay")
    return 0

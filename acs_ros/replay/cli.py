"""``acs-replay``: evaluates a model or a running node on the frames of a bag."""

from __future__ import annotations

if __name__ == "__main__":  # first: a signal may come while the modules below are imported
    from acs_core.entry import run

    run("acs_ros.replay.cli", "acs-replay")

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from acs_core.errors import FULL, AcsError, PhraseError, SelectorError, os_problem
from acs_core.terminal import make_console, print_error
from acs_ros.errors import BagError, NodeTrouble
from acs_ros.replay.options import make_parser, usage_problem, without_ros_arguments
from acs_ros.stop_signals import StopSignals, interrupt_at_the_second

if TYPE_CHECKING:
    from acs_ros.node.model_loader import GrounderLoader

FAILURES = (AcsError, BagError, NodeTrouble)


def main(arguments: Sequence[str] | None = None, load: GrounderLoader | None = None) -> int:
    """Run the command; returns the exit code. ``load`` loads the model, by default the one that the options name."""
    parser = make_parser()
    options = parser.parse_args(without_ros_arguments(sys.argv[1:]) if arguments is None else arguments)
    if problem := usage_problem(options):
        parser.error(problem)
    from acs_ros.replay.command import run  # late: --help needs none of it

    console = make_console(piped_width=160)
    try:
        with StopSignals(interrupt_at_the_second("acs-replay")) as stop:
            return run(options, parser, console, stop, load)
    except (SelectorError, PhraseError) as error:
        parser.error(str(error))
    except FAILURES as error:
        print_error("acs-replay", error)
        return 1
    except OSError as error:
        kept = ": it goes on from the answers that it has" if error.errno in FULL else ""
        print_error("acs-replay", f"{os_problem(error, options.out or '')}{kept}")
        return 1

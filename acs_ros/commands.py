"""The console scripts that setup.py names. They import nothing before signals are handled (:mod:`acs_core.entry`), and
this module is the only one that names the commands of all packages."""

from __future__ import annotations

import sys

try:
    from acs_core.entry import run
except ImportError as error:  # for a Python that is too old, in one line
    sys.exit(f"acs: {error}")


def grounding_node() -> None:
    """``grounding_node``: runs the lifecycle node."""
    run("acs_ros.main", "grounding", stopped=0, at_once=True)


def bag_player() -> None:
    """``bag_player``: publishes the images of a bag."""
    run("acs_ros.bags.bag_player", "bag_player", stopped=0)


def ask_by_topic() -> None:
    """``ask_by_topic``: example client."""
    run("acs_ros.examples.ask_by_topic", "ask_by_topic")


def ask_by_service() -> None:
    """``ask_by_service``: example client."""
    run("acs_ros.examples.ask_by_service", "ask_by_service")


def ask_by_action() -> None:
    """``ask_by_action``: example client."""
    run("acs_ros.examples.ask_by_action", "ask_by_action")


def acs_replay() -> None:
    """``acs-replay``: answers the queries of a bag."""
    run("acs_ros.replay.cli", "acs-replay")


def acs_soak() -> None:
    """``acs-soak``."""
    run("acs_ros.stress.soak_cli", "acs-soak")


def acs_load() -> None:
    """``acs-load``."""
    run("acs_ros.stress.load_cli", "acs-load")


def acs_bench() -> None:
    """``acs-bench``."""
    run("acs_ros.stress.bench_cli", "acs-bench")


def acs_ground() -> None:
    """``acs-ground``."""
    run("acs_core.cli", "acs-ground")


def acs_train() -> None:
    """``acs-train``."""
    run("training.cli.main", "acs-train")

"""Command ``acs-train reading-speed``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from training.cli.config import Configuration, recorded
from training.cli.console import bar
from training.cli.options import AUTO, BatchSize, Device, Json, Workers
from training.settings import FitConfig


@dataclass(frozen=True, kw_only=True)
class ReadingSpeedOptions(Configuration):
    """Options of ``acs-train reading-speed``."""

    command = "reading-speed"
    pairs: Annotated[int, typer.Option(help="Pairs of the collection to plan.", min=1)] = 5000
    epochs: Annotated[int, typer.Option(help="Epochs of the fit to plan.", min=1)] = FitConfig.epochs
    batch: BatchSize = FitConfig.batch
    workers: Workers = None
    device: Device = AUTO
    json: Json = None


def reading_speed(options: ReadingSpeedOptions) -> None:
    """Measure reading against fitting steps with made-up maps of a 7B model, and plan the hours and bytes of a
    collection."""
    from acs_core.output import write_json
    from training.fitting.reading_speed import SpeedConfig, measure_speed, speed_rows

    o = options
    config = SpeedConfig(o.pairs, o.epochs, o.batch, o.workers, o.device)
    with recorded(o, None, o.json):
        with bar() as move:
            found = speed_rows(config, measure_speed(config, partial(move, "7B shape")))
        for key, value in found.items():
            typer.echo(f"{key}: {value}")
        if o.json:
            write_json(o.json, found, o.full_command)

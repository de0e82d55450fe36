"""Consoles and progress bars of ``acs-train``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from acs_core.terminal import make_console

WIDTH = 120  # of tables in files and pipes
err = make_console(stderr=True)


def out_console() -> Console:
    """Return the console for results, on standard output."""
    return make_console(piped_width=WIDTH)


class _Rate(ProgressColumn):
    """Column with the progress per second, or per minute if below one per second."""

    def render(self, task: Task) -> Text:
        """Return the rate of the last minutes."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{speed * 60:.1f}/min", style="progress.data.speed")


@contextmanager
def bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar with one line per stage, its rate and the time left, on standard error.

    Yields:
        A function (stage, done, total) that updates it. The ``done`` of a stage's first call is attributed to an
        earlier run, and is excluded from the rate and the time left.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, speed_estimate_period=300) as progress:
        tasks: dict[str, TaskID] = {}

        def move(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total, completed=done)
            progress.update(tasks[name], completed=done, total=total)

        yield move

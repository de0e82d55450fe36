"""What the commands of ``acs-train`` share on the terminal."""

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

WIDTH = 120  # of tables that go into a file or a pipe
err = Console(stderr=True, emoji=False)  # "9:cat:" is a pair, not a picture of a cat


def out_console() -> Console:
    """For what a command is asked to print: tables, on the standard output."""
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDTH
    return console


class _Rate(ProgressColumn):
    """How many a second, or a minute where they are slow."""

    def render(self, task: Task) -> Text:
        """The rate of the last minutes."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{speed * 60:.1f}/min", style="progress.data.speed")


@contextmanager
def bar() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar with one line for each stage, its rate and the time left; gives the function (stage, done, total)
    that moves it. What is done at the first call was done before: it counts for neither."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn()
    with Progress(*columns, console=err, speed_estimate_period=300) as progress:
        tasks: dict[str, TaskID] = {}

        def move(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total, completed=done)
            progress.update(tasks[stage], completed=done, total=total)

        yield move

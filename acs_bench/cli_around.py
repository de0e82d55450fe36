"""The commands of ``acs-bench`` that measure what lies around the model: starting, other programs, ROS."""

from __future__ import annotations

from typing import Annotated

import typer

from acs_bench.cli_options import Device, Json, Model
from acs_bench.console import device_of, finish, measuring, out, size_of, table_of

commands = typer.Typer()


@commands.command(epilog="Example: acs-bench load --model tiny-internvl")
def load(
    model: Model = "tiny-internvl",
    device: Device = "auto",
    json_file: Json = None,
) -> None:
    """How long it takes until a model can answer, from the disk and from the page cache."""
    from acs_bench.loading import loading_times

    with measuring(1):
        rows = loading_times(model, device)
        table = table_of("cache", "imports, s", "load, s", "1st answer, s", "next, s", "added MB", "weights, MB")
        for row in rows:
            seconds = (row.import_s, row.load_s, row.first_answer_s, row.next_answer_s)
            table.add_row(row.cache, *(f"{s:.2f}" for s in seconds), f"{row.added_mb:.0f}", f"{row.weights_mb:.0f}")
        out.print(table)
        finish(device_of(device), {"rows": [row.to_dict() for row in rows]}, json_file)


@commands.command(epilog="Example: acs-bench busy --model tiny-internvl")
def busy(
    model: Model = "tiny-internvl",
    answers: Annotated[int, typer.Option(help="Answers of each case.", min=1)] = 9,
    json_file: Json = None,
) -> None:
    """What an answer takes on a CPU that other programs use too, with threads that spin or sleep while they wait."""
    from acs_bench.busy import busy_answers

    with measuring(1):
        rows = busy_answers(model, answers)
        table = table_of("threads", "waiting", "neighbours", "median, ms", "longest, ms")
        for row in rows:
            waiting = row.waiting if row.threads > 1 else "-"
            times = (f"{ms:.0f}" for ms in (row.median_ms, row.most_ms))
            table.add_row(str(row.threads), waiting, str(row.neighbours), *times)
        out.print(table)
        finish(device_of("cpu"), {"rows": [row.to_dict() for row in rows]}, json_file)


@commands.command(epilog="Example: acs-bench ros --sizes 640x480,1920x1080")
def ros(
    sizes: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the frames, separated by commas.")] = "640x480,1920x1080",
    frames: Annotated[int, typer.Option(help="Frames of each size.", min=1)] = 200,
    json_file: Json = None,
) -> None:
    """From an image message to its detections without a model, between two processes over DDS."""
    from acs_bench.ros import ros_overhead

    with measuring(1):
        rows = ros_overhead([size_of(text, "--sizes") for text in sizes.split(",")], frames)
        table = table_of("frame", "cores", "frames", "lost", "p50, ms", "p95, ms", "longest, ms")
        for row in rows:
            times = (f"{ms:.1f}" for ms in (row.p50_ms, row.p95_ms, row.most_ms))
            table.add_row(
                row.size, "kept awake" if row.awake else "as they are", str(row.frames), str(row.lost), *times
            )
        out.print(table)
        finish(device_of("cpu"), {"rows": [row.to_dict() for row in rows]}, json_file)

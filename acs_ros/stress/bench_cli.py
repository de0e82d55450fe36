"""The installed command ``acs-bench``: the benchmarks of :mod:`acs_core.bench` and ``acs-bench ros``."""

from __future__ import annotations

if __name__ == "__main__":  # first: a signal may come while the modules below are imported
    from acs_core.entry import run

    run("acs_ros.stress.bench_cli", "acs-bench")

from typing import Annotated

import typer

from acs_core.bench.cli import app, main
from acs_core.bench.console import Json, device_of, finish, measuring, out, size_of, table_of
from acs_core.terminal import print_table

__all__ = ["app", "main"]


@app.command(epilog="Example: acs-bench ros --sizes 640x480,1920x1080")
def ros(
    sizes: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the frames, separated by commas.")] = "640x480,1920x1080",
    frames: Annotated[int, typer.Option(help="Frames of each size.", min=1)] = 200,
    json_file: Json = None,
) -> None:
    """Measure the latency from an image message to its detections without a model, between two processes over DDS."""
    from acs_ros.stress.round_trip import ros_overhead

    with measuring(1):
        rows = ros_overhead([size_of(text, "--sizes") for text in sizes.split(",")], frames)
        table = table_of("frame", "cores", "frames", "lost", "p50, ms", "p95, ms", "longest, ms")
        for row in rows:
            times = (f"{ms:.1f}" for ms in (row.p50_ms, row.p95_ms, row.most_ms))
            table.add_row(
                row.size, "kept awake" if row.awake else "as they are", str(row.frames), str(row.lost), *times
            )
        print_table(out, table)
        finish(device_of("cpu"), {"rows": [row.to_dict() for row in rows]}, json_file)

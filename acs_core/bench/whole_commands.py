"""Commands of ``acs-bench`` that measure whole calls: ``whole`` and ``gpu-check``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from acs_core.bench.console import (
    Device,
    Dtype,
    Json,
    Repeats,
    Samples,
    Shape,
    device_of,
    finish,
    make_subject,
    measuring,
    out,
    say,
    shown_command,
    size_of,
    table_of,
)
from acs_core.output import write_json, write_text
from acs_core.output_folder import OutputFolder
from acs_core.terminal import print_error, print_table

CHECK = "acs-bench gpu-check"
PAGE, NUMBERS = "gpu_check.md", "gpu_check.json"
ALL_WAYS = "abcdejfigh"  # of acs_core.bench.whole.WAYS; that module imports torch


def whole(
    shape: Shape = "small",
    frame: Annotated[
        str, typer.Option(help="WIDTHxHEIGHT of the image; for small, 672x672 is 576 image tokens, 1792x1792 4096.")
    ] = "672x672",
    samples: Samples = 10,
    ways: Annotated[str, typer.Option(help=f"Which of {', '.join(ALL_WAYS)} to run.")] = ALL_WAYS,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Annotated[str, typer.Option(help="Numbers of CPU threads, separated by commas; all: one per core.")] = (
        "1,all"
    ),
    repeats: Repeats = 1,
    json_file: Json = None,
) -> None:
    """Compare whole calls, from image to selected box, with those of other engines, and with the goals for a CPU.

    Preprocessing, prompt and drawing are included. (a) to (c) are generate of transformers as in acs-bench, (f) with
    the prompt prefilled once and its cache repeated; (d) and (e) are ours, (j) without drafts. On a prompt without an
    image: (i) ours, (g) continuous batching of transformers, (h) CTranslate2, if it is installed.
    """
    if not ways or set(ways) - set(ALL_WAYS):
        raise typer.BadParameter(f"use letters of {ALL_WAYS}", param_hint="--ways")
    counts, size = _threads_of(threads), size_of(frame, "--frame")
    with measuring(counts[0]):
        from acs_core.bench.gpu_page import whole_cells
        from acs_core.bench.whole import compare_whole

        subject = make_subject(shape, None, 1, device, dtype, frame)
        runs = []
        for count in counts:
            say(f"{count} threads")
            report = compare_whole(subject, size, samples, ways, repeats, count, say)
            numbers = report.to_dict()
            runs.append({**numbers, "goals": [goal.to_dict() for goal in report.goals]})
            out.print(
                f"{subject.lvlm.name}, {count} threads: {report.image_tokens} image tokens of a prompt of "
                f"{report.prompt_tokens}, N = {samples}, {report.new_tokens} tokens a response"
            )
            table = table_of("way", "N", "seconds", "tokens/s", "added memory, MB")
            for cells in whole_cells(numbers["rows"]):
                table.add_row(*cells)
            print_table(out, table)
            for name, ratio in report.ratios.items():
                out.print(f"{name}: {ratio:.3g}")
            if report.stages_ms:
                out.print("(e) by stage: " + ", ".join(f"{k} {v:.1f} ms" for k, v in report.stages_ms.items()))
            for goal in report.goals:
                name, wanted, measured, verdict = goal.describe()
                out.print(f"goal {name} {wanted}: {measured}, {verdict}")
        finish(subject.lvlm.device, {"runs": runs}, json_file)


def gpu_check(
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for the page and the numbers.")] = Path("gpu_check"),
    shapes: Annotated[str | None, typer.Option(help="Shapes or models, separated by commas; default 7b,8b.")] = None,
    frames: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT of the images likewise; default 640x480,1920x1080.")
    ] = None,
    samples: Samples = 10,
    seconds: Annotated[float, typer.Option(help="Time of the whole run.", min=1.0, max=86400.0)] = 480.0,
    repeats: Repeats = 2,
    device: Device = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: one per core.", min=1, max=1024)] = None,
) -> None:
    """Measure everything that a GPU is to show, in at most --seconds, and write a page and the numbers.

    Without a GPU, small models and images run on the CPU by default. What does not fit into the time is named as left
    out. The exit code is 1 if a part failed or did not end in time.
    """
    started = time.monotonic()
    sizes = None if frames is None else [size_of(text, "--frames") for text in frames.split(",")]
    if shapes is not None and not all(shapes.split(",")):
        raise typer.BadParameter(f"{shapes!r} is not like 7b,8b", param_hint="--shapes")
    with OutputFolder(out_folder, CHECK, replaces=(PAGE, NUMBERS)) as held, measuring(threads or os.cpu_count() or 1):
        from acs_core.bench import gpu_check as check
        from acs_core.bench.gpu_page import gpu_page
        from acs_core.bench.measure import MachineInfo

        target = device_of(device)
        machine = MachineInfo.here(target)
        on_gpu = target.type == "cuda"
        plan = check.CheckPlan(
            target,
            tuple(shapes.split(",") if shapes else check.GPU_SHAPES if on_gpu else check.CPU_SHAPES),
            tuple(sizes or (check.GPU_FRAMES if on_gpu else check.CPU_FRAMES)),
            samples,
            repeats,
            seconds,
            started,
        )
        results: list[check.PartResult] = []
        parts = check.parts_of(plan)

        def write() -> None:
            known = [*results, *(check.PartResult.of(p, left_out="not begun") for p in parts[len(results) :])]
            page = gpu_page(known, machine, samples, time.monotonic() - started, CHECK)
            content = {
                "command": shown_command(sys.argv[1:]),
                "machine": machine.to_dict(),
                "samples": samples,
                "parts": [result.to_dict() for result in known],
            }
            with held.stage(PAGE, NUMBERS) as staged:
                write_text(staged / PAGE, page)
                write_json(staged / NUMBERS, content, CHECK)
            out.print(f"wrote {out_folder / PAGE} and {NUMBERS} beside it", markup=False)

        def stop() -> None:
            try:
                write()
                print_error("acs-bench", "the time is over; the last part was still running")
            finally:
                sys.stdout.flush()
                os._exit(1)  # nothing else ends a call of a GPU that hangs

        with check.stopped_after(plan.left(), stop):
            check.run_parts(parts, plan.left, results, say)
        write()
    for result in results:
        if result.left_out:
            out.print(f"left out: {result.kind}, {result.shape}, {result.frame}: {result.left_out}", markup=False)
    if any(result.left_out.startswith(check.FAILED) for result in results):
        raise typer.Exit(1)


def _threads_of(text: str) -> list[int]:
    """Return the numbers of threads in a text like 1,all, each once; any other text is a usage error."""
    counts: list[int] = []
    for part in text.split(","):
        if part == "all":
            count = os.cpu_count() or 1
        elif part.isascii() and part.isdigit() and len(part) < 5 and 1 <= int(part) <= 1024:
            count = int(part)
        else:
            raise typer.BadParameter(f"{text!r} is not like 1,all", param_hint="--threads")
        counts += [count] if count not in counts else []
    return counts

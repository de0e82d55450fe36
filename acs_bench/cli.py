"""``acs-bench``: what an answer costs, and against what."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from acs_bench import cli_around, cli_same
from acs_bench.cli_options import Device, Dtype, Frame, ImageTokens, Json, NewTokens, Repeats, Samples, Shape, Threads
from acs_bench.console import (
    describe_tokens,
    device_of,
    err,
    finish,
    make_subject,
    measuring,
    out,
    say,
    table_of,
)
from acs_core.errors import AcsError
from acs_core.oserrors import os_problem

app = typer.Typer(
    help="What N answers and their attention cost, side by side with transformers' own ways.",
    add_completion=False,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
)
app.add_typer(cli_same.commands)
app.add_typer(cli_around.commands)


@app.callback(epilog="Example: acs-bench --shape small --image-tokens 576 --samples 10 --new-tokens 40 --json out.json")
def engine(
    context: typer.Context,
    shape: Shape = "small",
    image_tokens: ImageTokens = 576,
    frame: Frame = "640x480",
    samples: Samples = 10,
    new_tokens: NewTokens = 40,
    ways: Annotated[str, typer.Option(help="Which of a, b, c, d, e to run.")] = "abcde",
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 1,
    repeats: Repeats = 1,
    json_file: Json = None,
) -> None:
    """Without a command: five ways to answer, writing the same tokens.

    (a) generate with eager attention and output_attentions, (b) generate with SDPA and no attention, (c) greedy, (d)
    ours with ACS-Free, (e) ours with ACS-Learned and all maps.
    """
    if context.invoked_subcommand:
        return
    from acs_bench.engine import WAYS, compare

    if not ways or set(ways) - set(WAYS):
        raise typer.BadParameter(f"use letters of {''.join(WAYS)}", param_hint="--ways")
    with measuring(threads):
        subject = make_subject(shape, image_tokens, 1, device, dtype, frame)
        report = compare(subject, samples, new_tokens, ways, repeats, say=say)
        table = table_of("", "way", "seconds", "tokens/s", "added memory, MB")
        for row in report.rows:
            numbers = (row.seconds, row.tokens_per_s, row.added_mb)
            cells = (row.note or "-" if v is None else f"{v:.{d}f}" for v, d in zip(numbers, (2, 0, 0), strict=True))
            table.add_row(row.way, WAYS[row.way], *cells)
        out.print(
            f"{subject.lvlm.name}: {report.weights_mb:.0f} MB of weights, {describe_tokens(subject)}, N = {samples}"
        )
        out.print(table)
        for name, ratio in report.ratios.items():
            out.print(f"{name}: {ratio:.3g}")
        if report.stages_ms:
            out.print("(e) by stage: " + ", ".join(f"{k} {v:.0f} ms" for k, v in report.stages_ms.items()))
        if report.map_gap is not None:
            out.print(f"largest difference between the maps of (a) and (e): {report.map_gap:.2g}")
        finish(subject.lvlm.device, report.to_dict(), json_file)


@app.command(epilog="Example: acs-bench phrases --phrases 4")
def phrases(
    shape: Shape = "small",
    phrases: Annotated[int, typer.Option(help="Phrases K about one picture.", min=1)] = 4,
    image_tokens: ImageTokens = 576,
    frame: Frame = "640x480",
    samples: Samples = 10,
    new_tokens: NewTokens = 40,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 1,
    repeats: Repeats = 1,
    json_file: Json = None,
) -> None:
    """K phrases about one picture in one call, and in K calls."""
    from acs_bench.phrases import compare_phrases

    with measuring(threads):
        subject = make_subject(shape, image_tokens, phrases, device, dtype, frame)
        report = compare_phrases(subject, samples, new_tokens, repeats)
        out.print(f"{subject.lvlm.name}, {describe_tokens(subject)}, {phrases} phrases of {samples} responses each")
        out.print(f"together {report.together_s:.2f} s, apart {report.apart_s:.2f} s: {report.ratio:.2f} of it")
        out.print(f"{report.same_responses} of {phrases * samples} responses are the same both ways")
        finish(subject.lvlm.device, report.to_dict(), json_file)


@app.command(epilog="Example: acs-bench sweep --plot docs/performance.png --json docs/performance.json")
def sweep(
    plot: Annotated[Path, typer.Option(help="PNG to write.")],
    shape: Shape = "small",
    new_tokens: NewTokens = 40,
    ways: Annotated[str, typer.Option(help="Which of a, b, c, d, e to run.")] = "bce",
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 1,
    repeats: Repeats = 1,
    json_file: Json = None,
) -> None:
    """Cost against the number of samples, of image tokens and of phrases, as a plot."""
    from acs_bench.machine import Machine
    from acs_bench.sweep import draw, to_dict
    from acs_bench.sweep import sweep as run_sweep

    with measuring(threads):
        found = run_sweep(
            lambda tokens, k: make_subject(shape, tokens, k, device, dtype, "640x480"), new_tokens, ways, repeats, say
        )
        here = device_of(device)
        draw(found, f"shape {shape}, {new_tokens} new tokens; {Machine.here(here).describe()}", plot)
        table = table_of("axis", "value", "way", "seconds")
        for point in found:
            table.add_row(point.axis, str(point.x), point.way, f"{point.seconds:.2f}")
        out.print(table)
        out.print(f"wrote {plot}")
        finish(here, {"points": to_dict(found)}, json_file)


@app.command(epilog="Example: acs-bench limits --shape 7b --frame 1920x1080 --device cuda")
def limits(
    shape: Shape = "small",
    frame: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the picture.")] = "640x480",
    samples: Samples = 10,
    new_tokens: NewTokens = 40,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 1,
    repeats: Repeats = 3,
    json_file: Json = None,
) -> None:
    """The decode step against reading the weights once, ten samples against one, memory against the weights."""
    from acs_bench.limits import SHORT_TOKENS, measure_limits

    if new_tokens <= SHORT_TOKENS:
        raise typer.BadParameter(f"must be above {SHORT_TOKENS}", param_hint="--new-tokens")
    with measuring(threads):
        subject = make_subject(shape, None, 1, device, dtype, frame)
        report = measure_limits(subject, samples, new_tokens, repeats)
        found = report.to_dict()
        out.print(f"{subject.lvlm.name}, frame {frame}: {describe_tokens(subject)}, N = {samples}, {new_tokens} tokens")
        out.print(
            f"decode step {report.step_ms:.2f} ms, reading the weights {report.floor_ms:.2f} ms at "
            f"{report.bandwidth_gb_s:.1f} GB/s: {found['step / floor']:.2f} of it"
        )
        out.print(
            f"N = {samples} takes {report.many_s:.2f} s, N = 1 {report.one_s:.2f} s: {found['N samples / one']:.2f}"
        )
        out.print(f"attention and selection: {report.looking_share:.1%} of the call")
        peak = "unknown" if report.peak_mb is None else f"{report.peak_mb:.0f} MB"
        out.print(f"added memory at its peak: {peak}, weights {report.weights_mb:.0f} MB")
        finish(subject.lvlm.device, found, json_file)


@app.command(epilog="Example: acs-bench selector --candidates 10")
def selector(
    candidates: Annotated[int, typer.Option(help="Candidates of a case.", min=1)] = 10,
    device: Device = "auto",
    threads: Threads = 1,
    repeats: Repeats = 3,
    json_file: Json = None,
) -> None:
    """What scoring a case with ACS-Learned costs, for the maps of models of three sizes."""
    from acs_bench.selector import PAPER_S_PER_CASE, selector_costs

    with measuring(threads):
        rows = selector_costs(candidates, device_of(device), repeats)
        table = table_of("maps of", "candidates", "ms a case", "ms a candidate", f"{PAPER_S_PER_CASE} s / ours")
        for row in rows:
            cells = (f"{row.case_ms:.1f}", f"{row.candidate_ms:.2f}", f"{row.paper_over_ours:.2f}")
            table.add_row(row.model, str(row.candidates), *cells)
        out.print(table)
        finish(device_of(device), {"rows": [row.to_dict() for row in rows]}, json_file)


def main() -> None:
    """Runs the command; a failure is one line and exit code 1."""
    try:
        app()
    except (AcsError, OSError) as error:
        said = os_problem(error) if isinstance(error, OSError) else error
        err.print(f"acs-bench: {said}", markup=False, style="red")
        sys.exit(1)


if __name__ == "__main__":
    main()

"""``acs-bench``: benchmarks of the engine."""

from __future__ import annotations

if __name__ == "__main__":  # first: a signal may come while the modules below are imported
    from acs_core.entry import run

    run("acs_core.bench.cli", "acs-bench")

import sys
from pathlib import Path
from typing import Annotated

import typer

from acs_core.artifacts.model_name import check_model_name
from acs_core.bench.console import (
    Budget,
    Device,
    Dtype,
    Frame,
    ImageTokens,
    Json,
    Model,
    NewTokens,
    Picture,
    Repeats,
    Samples,
    Shape,
    Threads,
    describe_tokens,
    device_of,
    finish,
    finish_rows,
    make_subject,
    measuring,
    numbers_of,
    out,
    say,
    short_name,
    shown_command,
    size_of,
    table_of,
)
from acs_core.bench.more_commands import busy, forwards, load, startup
from acs_core.bench.whole_commands import gpu_check, whole
from acs_core.errors import AcsError, OptionError, os_problem
from acs_core.option_types import StrictTyper
from acs_core.output import check_distinct, checked_option, write_json, write_text
from acs_core.terminal import print_error, print_table
from acs_core.types import FAMILY_FRAME

OBJECT = "stop sign"  # acs_core.bench.frames draws one; that module imports torch

SWEPT_SAMPLES, SWEPT_TOKENS = "1,2,5,10,20,30", "144,324,576,1024"

app = StrictTyper(
    help="Cost of N responses and their attention, compared with generation by transformers.",
    invoke_without_command=True,
)


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
    """Compare five ways to write the same tokens (without a command).

    (a) generate with eager attention and output_attentions, (b) generate with SDPA and no attention, (c) greedy, (d)
    ours with ACS-Free, (e) ours with ACS-Learned and all maps.
    """
    if context.invoked_subcommand:
        return
    from acs_core.bench.engine import WAYS, compare

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
        print_table(out, table)
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
    phrases: Annotated[int, typer.Option(help="Phrases K about one picture.", min=1, max=256)] = 4,
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
    """Compare K phrases about one image in one call with K calls."""
    from acs_core.bench.phrases import compare_phrases

    with measuring(threads):
        subject = make_subject(shape, image_tokens, phrases, device, dtype, frame)
        report = compare_phrases(subject, samples, new_tokens, repeats)
        out.print(f"{subject.lvlm.name}, {describe_tokens(subject)}, {phrases} phrases of {samples} responses each")
        out.print(f"together {report.together_s:.2f} s, apart {report.apart_s:.2f} s: {report.ratio:.2f} of it")
        out.print(f"{report.same_responses} of {phrases * samples} responses are the same both ways")
        finish(subject.lvlm.device, report.to_dict(), json_file)


@app.command(epilog="Example: acs-bench sweep --plot cost.png --samples 1,10,64 --image-tokens 576,4096")
def sweep(
    plot: Annotated[Path, typer.Option(callback=checked_option, help="PNG to write.")],
    shape: Shape = "small",
    new_tokens: NewTokens = 40,
    ways: Annotated[str, typer.Option(help="Which of a, b, c, d, e to run.")] = "bce",
    samples: Annotated[
        str, typer.Option(help="Numbers of responses, separated by commas, up to 1024.")
    ] = SWEPT_SAMPLES,
    image_tokens: Annotated[str, typer.Option(help="Numbers of image tokens likewise, up to 16384.")] = SWEPT_TOKENS,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 1,
    repeats: Repeats = 1,
    json_file: Json = None,
) -> None:
    """Plot the cost over the number of samples, of image tokens and of phrases."""
    from acs_core.bench.measure import MachineInfo
    from acs_core.bench.sweep import draw, to_dict
    from acs_core.bench.sweep import sweep as run_sweep

    ns, token_counts = numbers_of(samples, "--samples", 1024), numbers_of(image_tokens, "--image-tokens", 16384)
    with measuring(threads):
        found = run_sweep(
            lambda tokens, k: make_subject(shape, tokens, k, device, dtype, "640x480"),
            new_tokens,
            ways,
            repeats,
            say,
            ns,
            token_counts,
        )
        here = device_of(device)
        draw(found, f"shape {shape}, {new_tokens} new tokens; {MachineInfo.here(here).describe()}", plot)
        table = table_of("axis", "value", "way", "seconds")
        for point in found:
            table.add_row(point.axis, str(point.x), point.way, f"{point.seconds:.2f}")
        print_table(out, table)
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
    """Compare a decode step with reading the weights once and with its matrix products, ten samples with one, and
    memory with the weights."""
    from acs_core.bench.limits import SHORT_TOKENS, measure_limits

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
            f"matrix products of a step alone {report.linear_ms:.2f} ms: {found['step / linear layers']:.2f} of it"
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
    candidates: Annotated[int, typer.Option(help="Candidates per case.", min=1)] = 10,
    device: Device = "auto",
    threads: Threads = 1,
    repeats: Repeats = 3,
    json_file: Json = None,
) -> None:
    """Measure the time of scoring a case with ACS-Learned, for the maps of models of three sizes."""
    from acs_core.bench.limits import PAPER_S_PER_CASE, selector_costs

    with measuring(threads):
        rows = selector_costs(candidates, device_of(device), repeats)
        table = table_of("maps of", "candidates", "ms a case", "ms a candidate", f"{PAPER_S_PER_CASE} s / ours")
        for row in rows:
            cells = (f"{row.case_ms:.1f}", f"{row.candidate_ms:.2f}", f"{row.paper_over_ours:.2f}")
            table.add_row(row.model, str(row.candidates), *cells)
        finish_rows(device_of(device), table, rows, json_file)


@app.command(epilog="Example: acs-bench quantization --model tiny-internvl --image docs/sample.png --phrase key")
def quantization(
    image: Picture,
    phrase: Annotated[str, typer.Option(help="Phrase to ask for.")],
    model: Model = "tiny-internvl",
    samples: Samples = 10,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 1,
    json_file: Json = None,
) -> None:
    """Measure the effect of 8-bit and 4-bit weights on attention (on the same responses), speed and size of a model."""
    from acs_core.bench.quantization import compare_quantizations
    from acs_core.image import read_image

    with measuring(threads):
        rows = compare_quantizations(model, read_image(image), phrase, samples, device, dtype, say)
        table = table_of(
            "weights", "MB", "s a call", "map correlation", "lowest 5 %", "entropy gap, nats", "rank correlation"
        )
        for row in rows:
            seen = (row.map_correlation, row.map_correlation_low, row.entropy_gap, row.rank_correlation)
            table.add_row(row.quantization, f"{row.weights_mb:.1f}", f"{row.seconds:.2f}", *(f"{v:.3f}" for v in seen))
        out.print(f"{model}, {image.name}, {phrase!r}, the same {samples} responses")
        finish_rows(device_of(device), table, rows, json_file)


@app.command(
    "check-device", epilog="Example: acs-bench check-device --image docs/sample.png --phrase key --device cuda"
)
def check(
    image: Picture,
    phrase: Annotated[list[str], typer.Option(help="Phrase to ask for; may be repeated.")],
    model: Model = "tiny-internvl",
    samples: Samples = 10,
    device: Device = "auto",
    dtype: Annotated[list[str], typer.Option(help="float32, float16 or bfloat16; may be repeated.")] = [  # noqa: B006
        "float32",
        "bfloat16",
    ],
    threads: Threads = 1,
    json_file: Json = None,
) -> None:
    """Compare a device's answers with a CPU in float32, and its recorded decode steps with eager ones."""
    from acs_core.bench.check_device import check_device
    from acs_core.image import read_image

    with measuring(threads):
        rows = check_device(model, read_image(image), phrase, samples, device, dtype, say)
        table = table_of(
            "weights", "greedy as on the CPU", "largest map gap", "recorded = growing", "growing, ms", "recorded, ms"
        )
        for row in rows:
            alike, recorded = "none recorded", "-"
            if row.recorded_ms is not None:
                alike, recorded = f"{row.responses_alike} of {row.responses}", f"{row.recorded_ms:.1f}"
            greedy = f"{row.greedy_alike} of {row.phrases}"
            table.add_row(row.dtype, greedy, f"{row.map_gap:.2g}", alike, f"{row.growing_ms:.1f}", recorded)
        out.print(f"{model} on {rows[0].device}, {image.name}, {samples} responses a phrase")
        finish_rows(device_of(device), table, rows, json_file)


Frames = Annotated[str, typer.Option(help="WIDTHxHEIGHT of the pictures, separated by commas.")]
DEFAULT_FRAMES = "640x480,1280x720,1920x1080,3840x2160"


@app.command(epilog="Example: acs-bench pictures --shape small --frames 640x480,1920x1080")
def pictures(
    shape: Shape = "small",
    frames: Frames = DEFAULT_FRAMES,
    max_image_tokens: Budget = None,
    samples: Samples = 10,
    new_tokens: NewTokens = 40,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = 1,
    repeats: Repeats = 1,
    json_file: Json = None,
) -> None:
    """Compare the cost of pictures of several sizes at the limit of the model's processor and within a budget."""
    from acs_core.bench.pictures import picture_costs

    sizes = [size_of(text, "--frames") for text in frames.split(",")]
    with measuring(threads):
        rows = picture_costs(shape, sizes, max_image_tokens, samples, new_tokens, device, dtype, repeats, say)
        table = table_of("picture", "max_image_tokens", "image tokens", "prefill, ms", "call, s", "added memory, MB")
        for row in rows:
            budget = "no budget" if row.max_image_tokens is None else str(row.max_image_tokens)
            added = "unknown" if row.added_mb is None else f"{row.added_mb:.0f}"
            numbers = (str(row.image_tokens), f"{row.reading_ms:.0f}", f"{row.seconds:.2f}", added)
            table.add_row(row.frame, budget, *numbers)
        out.print(f"{shape}: N = {samples} responses of {new_tokens} tokens")
        finish_rows(device_of(device), table, rows, json_file)


@app.command("check-model", epilog="Example: acs-bench check-model Qwen/Qwen2.5-VL-7B-Instruct --device cuda")
def check_checkpoint(
    model: Annotated[str, typer.Argument(help="Name of an embedded model, a model folder, or a hub id.")],
    page: Annotated[
        Path | None,
        typer.Option(
            "--out", callback=checked_option, help="Markdown page to write; default: acs-model-report-NAME.md."
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", callback=checked_option, help="JSON file to write; default: beside the page."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    phrase: Annotated[str, typer.Option(help="What the rendered pictures, of a stop sign, are asked about.")] = OBJECT,
    max_image_tokens: Budget = None,
    coordinate_frame: Annotated[
        str, typer.Option(help="family, 0-1000, resized, original or 0-1: frame that acs uses.")
    ] = FAMILY_FRAME,
    frames: Frames = DEFAULT_FRAMES,
    samples: Samples = 10,
    new_tokens: NewTokens = 40,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantization: Annotated[str, typer.Option(help="none, 8bit or 4bit.")] = "none",
    threads: Threads = 1,
    repeats: Repeats = 3,
) -> None:
    """Check a checkpoint and write a report to send back: prompt, tokens, maps, pictures, coordinates and speed.

    The exit code is 1 if a check failed. The report is written in any case.
    """
    sizes = [size_of(text, "--frames") for text in frames.split(",")]
    check_model_name(model)
    page = page or Path(f"acs-model-report-{short_name(model)}.md")
    data = json_file or page.with_suffix(".json")
    for file in (page, data):
        checked_option(file)
    check_distinct(page, data)
    from acs_core.bench.check_model import check_model
    from acs_core.bench.model_page import model_page
    from acs_core.lvlm import load_lvlm

    with measuring(threads):
        say(f"loading {model}")
        lvlm = load_lvlm(
            model,
            revision=revision,
            device=device,
            dtype=dtype,
            quantization=quantization,
            max_image_tokens=max_image_tokens,
            coordinate_frame=coordinate_frame,
        )
        report = check_model(lvlm, samples, new_tokens, repeats, sizes, phrase, say=say)
    for check in report.checks:
        style = {True: "green", False: "red", None: "yellow"}[check.passed]
        out.print(f"{check.name}: {check.verdict}: {check.said}", style=style, markup=False, highlight=False)
    write_text(page, model_page(report, "acs-bench check-model"), guarded=True)
    content = {"command": shown_command(sys.argv[1:]), **report.to_dict()}
    write_json(data, content, "acs-bench check-model")
    out.print(f"wrote {page} and {data}: please send both to the maintainers of acs", markup=False)
    if report.failed:
        raise typer.Exit(1)


app.command(epilog="Example: acs-bench load --model tiny-internvl")(load)
app.command(epilog="Example: acs-bench busy --model tiny-internvl")(busy)
app.command(epilog="Example: acs-bench forwards --model tiny-internvl --image docs/sample.png")(forwards)
app.command(epilog="Example: acs-bench startup")(startup)
app.command(epilog="Example: acs-bench whole --shape small --frame 672x672 --threads 1,all")(whole)
app.command("gpu-check", epilog="Example: acs-bench gpu-check --out gpu_check --seconds 480")(gpu_check)


def main() -> None:
    """Run the command; a failure is one line and exit code 1."""
    try:
        app()
    except OptionError as error:
        print_error("acs-bench", error)
        sys.exit(2)
    except (AcsError, OSError) as error:
        print_error("acs-bench", os_problem(error) if isinstance(error, OSError) else error)
        sys.exit(1)

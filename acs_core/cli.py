"""The command ``acs-ground``: grounding of one phrase in one image file."""

from __future__ import annotations

if __name__ == "__main__":  # first: a signal may come while the modules below are imported
    from acs_core.entry import run

    run("acs_core.cli", "acs-ground")

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.table import Table

from acs_core.cli_options import DEFAULT_SAMPLES, make_parser
from acs_core.errors import AcsError, OptionError, SelectorError, os_problem
from acs_core.light_imports import load_lightly
from acs_core.option_types import empty_option
from acs_core.output import check_distinct, check_target, json_text, write_picture, write_text
from acs_core.terminal import make_console, print_error
from acs_core.types import GroundingResult, Outcome, SamplingConfig, ScoreKind

if TYPE_CHECKING:
    from acs_core.grounder import Grounder

Result = TypeVar("Result")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments`` (default: those of the process) and return its exit code."""
    parser = make_parser()
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(given)
    if problem := empty_option(given):
        parser.error(problem)
    if options.out is not None and options.out.suffix.lower() not in PICTURES:
        parser.error(f"--out must end in one of {', '.join(PICTURES)}, got {options.out}")
    try:
        return _run(options)
    except SelectorError as error:
        parser.error(f"argument --selector: {error}")
    except OptionError as error:
        parser.error(str(error))
    except AcsError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(os_problem(error, options.out or options.json or ""))


def _run(options: argparse.Namespace) -> int:
    sampling = SamplingConfig(
        num_samples=DEFAULT_SAMPLES if options.samples is None else options.samples,
        auto=options.samples is None,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        seed=options.seed,
        speculation=options.speculation,
    )
    from acs_core.arguments import clean_phrase
    from acs_core.artifacts.model_name import check_model_name  # late: --help needs none of these

    check_model_name(options.model)
    from acs_core.image import read_image

    _lightly(options, _check_selector)
    # Everything that can be checked without the model is checked before it is loaded.
    image = read_image(options.image, options.bits)
    phrase = clean_phrase(options.phrase)
    read = [
        path
        for path in (options.image, options.heads, options.regressor, options.joint_model, options.calibration)
        if path
    ]
    outputs = options.out, options.json if options.json != Path("-") else None
    check_distinct(*outputs)
    for path in outputs:
        if path is not None:
            check_target(path, map(Path, read))

    notes = make_console(stderr=True)
    with notes.status("loading the model") if notes.is_terminal else nullcontext():
        grounder = _lightly(options, _load)
    with notes.status(f"looking for {phrase!r}") if notes.is_terminal else nullcontext():
        result = grounder.ground(
            image,
            phrase,
            sampling=sampling,
            multiple=options.multiple,
            min_score=options.min_score,
            min_votes=options.min_votes,
            check_labels=options.check_labels,
            whole_responses=options.whole_responses,
            deadline_ms=options.deadline,
            second_look=options.second_look,
        )

    if options.json != Path("-"):
        print_result(result, make_console(piped_width=160))
    if options.out is not None:
        from acs_core.overlay import draw_result

        write_picture(options.out, draw_result(image, result), "acs-ground")
        notes.print(f"picture: {options.out}", soft_wrap=True)
    if options.json is not None:
        from acs_core.serialize import result_to_dict

        text = json_text(result_to_dict(result), "acs-ground")
        if options.json == Path("-"):
            sys.stdout.write(text)
        else:
            write_text(options.json, text)
    return 0


def _lightly(options: argparse.Namespace, call: Callable[[argparse.Namespace], Result]) -> Result:
    """Return ``call(options)``, which imports transformers, without what is not used."""
    if options.quantization != "none":  # the quantisers of transformers use more of torch
        return call(options)
    return load_lightly(partial(call, options))


def _check_selector(options: argparse.Namespace) -> None:
    from acs_core.selection.registry import artifact_kinds, check_name, check_read

    check_name(options.selector, auto=True)
    check_read(options.selector, {kind.name: getattr(options, kind.name, None) for kind in artifact_kinds()})


def _load(options: argparse.Namespace) -> Grounder:
    # Imported late: torch and transformers take seconds, which --help and usage errors should not cost.
    from transformers.utils import logging

    from acs_core.grounder import Grounder

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return Grounder.from_pretrained(
        options.model,
        selector=options.selector,
        heads=options.heads,
        regressor=options.regressor,
        joint_model=options.joint_model,
        calibration=options.calibration,
        revision=options.revision,
        device=options.device,
        dtype=options.dtype,
        quantization=options.quantization,
        max_image_tokens=options.max_image_tokens,
        coordinate_frame=options.coordinate_frame,
    )


def _fail(message: str) -> int:
    print_error("acs-ground", message)
    return 1


def print_result(result: GroundingResult, console: Console) -> None:
    """Print a result as text: the detections, then every candidate with its outcome, best first."""

    def say(text: str, style: str = "") -> None:
        # Phrases and model output are data: square brackets in them are not markup.
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    say(f'"{result.phrase}" in {result.image_size[0]} x {result.image_size[1]} pixels, {result.model}', "bold")
    if result.input_size is not None:
        width, height = result.input_size
        say(f"  seen by the model as {width} x {height} pixels, {result.image_tokens} image tokens", "dim")
    for detection in result.detections:
        score = "no score" if result.score_kind is ScoreKind.NONE else f"{detection.score:.2f}"
        corners = ", ".join(f"{v:.1f}" for v in detection.box.as_tuple())
        expected = "" if detection.expected_iou is None else f"  expected IoU {detection.expected_iou:.2f}"
        made = "" if detection.box == result.candidates[detection.candidate].box else "  made out of several boxes"
        say(f"  box [{corners}]  {score}{expected}{made}", "green")
    if not result.detections:
        say(f"  no detection: {result.reason}", "yellow")
    if result.candidates:
        console.print(_table(result))
    else:
        for text, count in _texts(result).items():
            say(f"  {count} x {text}", "dim")
    total = result.timing_ms.get("total", 0.0)
    if result.window:
        corners = ", ".join(f"{v:.1f}" for v in result.window.as_tuple())
        again = ", ".join(str(i) for i, c in enumerate(result.candidates) if c.look) or "none"
        say(f"second look at [{corners}]: candidates {again}", "dim")
    for left_out in result.skipped:
        say(f"skipped: {left_out}", "yellow")
    kind = result.score_kind.value.replace("_", " ")
    say(f"{result.selector}, score: {kind}, seed {result.seed}, {total:.0f} ms", "dim")


def _table(result: GroundingResult) -> Table:
    """Return the table of candidates, narrow enough for most reasons to fit on one line of 80 columns."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("", "#", "resp", "x1", "y1", "x2", "y2", "quality", "score"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why")
    rows = sorted(enumerate(result.candidates), key=lambda r: (r[1].outcome is not Outcome.SELECTED, -r[1].quality))
    for index, c in rows:
        style = {Outcome.SELECTED: "green", Outcome.BELOW_THRESHOLD: "yellow"}.get(c.outcome, "")
        score = "-" if result.score_kind is ScoreKind.NONE else f"{c.score:.2f}"
        mark = "*" if c.outcome is Outcome.SELECTED else ""
        corners = (f"{v:.1f}" for v in c.box.as_tuple())
        table.add_row(mark, str(index), str(c.response), *corners, f"{c.quality:.2f}", score, c.reason, style=style)
    return table


def _texts(result: GroundingResult, limit: int = 3) -> dict[str, int]:
    """Return the distinct response texts with their counts, shortened and printable, the most frequent ``limit``."""
    counts: dict[str, int] = {}
    for response in result.responses:
        text = repr(response.text[:120] + ("..." if len(response.text) > 120 else ""))
        counts[text] = counts.get(text, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1])[:limit])

"""``acs-ground``: one picture and one phrase from the shell."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from acs_core.cli_options import DEFAULT_SAMPLES, make_parser
from acs_core.errors import AcsError, SelectorError
from acs_core.oserrors import os_problem
from acs_core.types import GroundingResult, Outcome, SamplingConfig, ScoreKind

if TYPE_CHECKING:
    from acs_core.grounder import Grounder

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command with ``arguments`` (default: those of the process) and returns its exit code."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.out is not None and options.out.suffix.lower() not in PICTURES:
        parser.error(f"--out must end in one of {', '.join(PICTURES)}, got {options.out}")
    try:
        return _run(options, parser)
    except SelectorError as error:
        parser.error(str(error))
    except AcsError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(os_problem(error, options.out or options.json or ""))
    except KeyboardInterrupt:
        print("acs-ground: stopped", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    try:
        sampling = SamplingConfig(
            num_samples=DEFAULT_SAMPLES if options.samples is None else options.samples,
            auto=options.samples is None,
            temperature=options.temperature,
            top_p=options.top_p,
            top_k=options.top_k,
            seed=options.seed,
        )
    except ValueError as error:
        parser.error(str(error).split("; got ")[0])
    from acs_core.image import read_image
    from acs_core.phrase import clean_phrase
    from acs_core.selection import check_name

    check_name(options.selector)
    # All that can be wrong without the model is found before it is loaded.
    image = read_image(options.image)
    phrase = clean_phrase(options.phrase)
    for path in (options.out, options.json if options.json != Path("-") else None):
        if path is not None and not path.parent.is_dir():
            return _fail(f"{path}: the folder {path.parent} does not exist")

    notes = Console(stderr=True)
    with notes.status("loading the model") if notes.is_terminal else nullcontext():
        grounder = _load(options)
    with notes.status(f"looking for {phrase!r}") if notes.is_terminal else nullcontext():
        result = grounder.ground(
            image,
            phrase,
            sampling=sampling,
            multiple=options.multiple,
            min_score=options.min_score,
            min_votes=options.min_votes,
            deadline_ms=options.deadline,
            second_look=options.second_look,
        )

    if options.json != Path("-"):
        console = Console(emoji=False)
        print_result(result, console if console.is_terminal else Console(width=160))
    if options.out is not None:
        from PIL import Image

        from acs_core.overlay import draw_result

        Image.fromarray(draw_result(image, result)).save(options.out)
        print(f"picture: {options.out}", file=sys.stderr)
    if options.json is not None:
        from acs_core.serialize import result_to_dict

        text = json.dumps(result_to_dict(result), indent=2) + "\n"
        if options.json == Path("-"):
            sys.stdout.write(text)
        else:
            options.json.write_text(text, encoding="utf-8")
    return 0


def _load(options: argparse.Namespace) -> Grounder:
    # Importing torch and transformers takes seconds: not for --help, nor for a mistyped option.
    from transformers.utils import logging

    from acs_core.grounder import Grounder

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return Grounder.from_pretrained(
        options.model,
        selector=options.selector,
        heads=options.heads,
        regressor=options.regressor,
        calibration=options.calibration,
        revision=options.revision,
        device=options.device,
        dtype=options.dtype,
        quantization=options.quantization,
    )


def _fail(message: str) -> int:
    print(f"acs-ground: {' '.join(message.split())}", file=sys.stderr)
    return 1


def print_result(result: GroundingResult, console: Console) -> None:
    """Prints a result for people: the answer, then every candidate with its verdict, the best first."""

    def say(text: str, style: str = "") -> None:
        # Phrases and model output are data: square brackets in them are no markup.
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    say(f'"{result.phrase}" in {result.image_size[0]} x {result.image_size[1]} pixels, {result.model}', "bold")
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
    """One row per candidate, narrow enough for most verdicts to stay on their line in 80 columns."""
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
    """The distinct response texts and how often each came, shortened and printable, at most ``limit``."""
    counts: dict[str, int] = {}
    for response in result.responses:
        text = repr(response.text[:120] + ("..." if len(response.text) > 120 else ""))
        counts[text] = counts.get(text, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1])[:limit])


if __name__ == "__main__":
    sys.exit(main())

"""The command ``acs-ground``: grounding of phrases in image files."""

from __future__ import annotations

if __name__ == "__main__":  # first: a signal may come while the modules below are imported
    from acs_core.entry import run

    run("acs_core.cli", "acs-ground")

import argparse
import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.table import Table

from acs_core.cli_answers import Answers
from acs_core.cli_inputs import WRITTEN, Outputs, find_images, find_phrases, is_picture
from acs_core.cli_options import DEFAULT_SAMPLES, make_parser
from acs_core.errors import (
    AcsError,
    DeviceMemoryError,
    HeadFileError,
    ImageError,
    JointError,
    OptionError,
    RegressorError,
    SelectorError,
    os_problem,
)
from acs_core.light_imports import load_lightly
from acs_core.output import write_picture
from acs_core.terminal import make_console, print_error
from acs_core.types import GroundingResult, Outcome, SamplingConfig, ScoreKind

if TYPE_CHECKING:
    from acs_core.geometry import Box
    from acs_core.grounder import Grounder
    from acs_core.request import GroundOptions

Result = TypeVar("Result")
FILE_OPTIONS = ((HeadFileError, "heads"), (RegressorError, "regressor"), (JointError, "joint_model"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments`` (default: those of the process) and return its exit code."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if is_picture(Path(options.phrase)):
        parser.error(
            f"the last argument, {options.phrase}, is a picture: where is the phrase? Put it last, like: "
            f'acs-ground {options.phrase} "key"'
        )
    try:
        images = find_images(options.image)
        endings = WRITTEN if len(images) == 1 else ("",)
        if options.out is not None and options.out.suffix.lower() not in endings:
            wanted = f"end in one of {', '.join(WRITTEN)}"
            if len(images) > 1:
                wanted = f"name a folder for {len(images)} images"
            parser.error(f"--out must {wanted}, got {options.out}")
        return _run(options, images)
    except SelectorError as error:
        parser.error(f"argument --selector: {error}")
    except OptionError as error:
        parser.error(str(error))
    except AcsError as error:
        return _fail(f"{_option_of(error, options)}{error}", parser)
    except OSError as error:
        return _fail(os_problem(error, options.out or options.json or ""), parser)


def _run(options: argparse.Namespace, images: Sequence[Path]) -> int:
    from acs_core.artifacts.model_name import check_model_name  # late: --help needs none of these

    check_model_name(options.model)
    from acs_core.image import read_image

    _lightly(options, _check_selector)
    # Everything that can be checked without the model is checked before it is loaded.
    pixels = read_image(images[0], options.bits) if len(images) == 1 else None
    phrases = find_phrases(options.phrase)
    files = (options.heads, options.regressor, options.joint_model, options.calibration)
    to_file = options.json if options.json != Path("-") else None
    outputs = Outputs.of(images, options.out, to_file, [*images, *(Path(file) for file in files if file)])

    notes, console = make_console(stderr=True), make_console(piped_width=160)
    with notes.status("loading the model") if notes.is_terminal else nullcontext():
        grounder = _lightly(options, _load)
    if outputs.folder is not None:
        outputs.folder.mkdir(exist_ok=True)
    answers = Answers(len(images))
    try:
        for number, image in enumerate(images):
            try:
                if pixels is None or number:
                    pixels = read_image(image, options.bits)
                with notes.status(f"looking for {'; '.join(phrases)}") if notes.is_terminal else nullcontext():
                    results = grounder.ground_many(pixels, phrases, **_call_options(options))
            except (ImageError, DeviceMemoryError) as error:  # others concern every image
                if len(images) == 1:
                    raise
                print_error("acs-ground", error)
                answers.add_error(image, error)
                continue
            answers.add(image, results)
            if options.json != Path("-"):
                for result in results:
                    if len(images) > 1:
                        print_line(image, result, console)
                    else:
                        print_result(result, console, with_time=len(results) == 1)
                if len(images) == 1 < len(results):
                    total = results[0].timing_ms.get("total", 0.0)
                    console.print(f"{len(results)} phrases in one call: {total:.0f} ms", style="dim", highlight=False)
            if outputs.pictures:
                from acs_core.overlay import draw_results

                write_picture(outputs.pictures[number], draw_results(pixels, results), "acs-ground")
    except BaseException:  # Ctrl-C, a full disk, a lost device: minutes of answers are not lost with it
        answers.save_unfinished(options.json)
        raise
    for phrase in phrases:
        if unknown := grounder.unknown_words(phrase):
            notes.print(
                f'note: {grounder.model_name} does not know {" or ".join(unknown)} of "{phrase}"; the embedded '
                "models know the 52 things that docs/rendered_world.md lists",
                style="yellow",
                soft_wrap=True,
                markup=False,
            )
    if options.out is not None:
        written = f"{len(images) - answers.failed} pictures in" if outputs.folder is not None else "picture:"
        notes.print(f"{written} {options.out}", soft_wrap=True)
    if options.json is not None:
        answers.write(options.json)
    return 1 if answers.failed else 0


def _call_options(options: argparse.Namespace) -> GroundOptions:
    sampling = SamplingConfig(
        num_samples=DEFAULT_SAMPLES if options.samples is None else options.samples,
        auto=options.samples is None,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        seed=options.seed,
        speculation=options.speculation,
    )
    return {
        "sampling": sampling,
        "multiple": options.multiple,
        "min_score": options.min_score,
        "min_votes": options.min_votes,
        "check_labels": options.check_labels,
        "whole_responses": options.whole_responses,
        "deadline_ms": options.deadline,
        "second_look": options.second_look,
    }


def _option_of(error: AcsError, options: argparse.Namespace) -> str:
    """Return the option and the file that a message about a file of the user is about, or ""."""
    for kind, name in FILE_OPTIONS:
        file = getattr(options, name)
        if isinstance(error, kind) and file is not None:
            return f"--{name.replace('_', '-')} {file}: "
    return ""


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
        prefix_bytes=options.prefix_bytes,
    )


def _fail(message: str, parser: argparse.ArgumentParser) -> int:
    print_error("acs-ground", named_as_options(message, parser))
    return 1


def named_as_options(text: str, parser: argparse.ArgumentParser) -> str:
    """Return ``text`` with the options as the command has them: --min-score for min_score. File names are kept."""
    for action in parser._actions:
        if "_" in action.dest and action.option_strings:
            text = re.sub(rf"(?<![\w./-]){action.dest}(?![\w./-])", action.option_strings[0], text)
    return text


def print_line(image: Path, result: GroundingResult, console: Console) -> None:
    """Print the detections of one image on a line each, or why there are none."""
    lines = [f"{_corners(d.box)}  {_score(result, d.score)}" for d in result.detections]
    for line in lines or [f"no detection: {named_as_options(result.reason, make_parser())}"]:
        style = "green" if result.detections else "yellow"
        console.print(f'{image}  "{result.phrase}"  {line}', style=style, markup=False, highlight=False, soft_wrap=True)


def _corners(box: Box) -> str:
    return f"[{', '.join(f'{v:.1f}' for v in box)}]"


def _score(result: GroundingResult, score: float) -> str:
    return "no score" if result.score_kind is ScoreKind.NONE else f"{score:.2f}"


def print_result(result: GroundingResult, console: Console, with_time: bool = True) -> None:
    """Print a result as text: the detections, then every candidate with its outcome, best first, and ``with_time`` the
    time of the call, which all its phrases share."""

    def say(text: str, style: str = "") -> None:
        # Phrases and model output are data: square brackets in them are not markup.
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    say(f'"{result.phrase}" in {result.image_size[0]} x {result.image_size[1]} pixels, {result.model}', "bold")
    if result.input_size is not None:
        width, height = result.input_size
        say(f"  seen by the model as {width} x {height} pixels, {result.image_tokens} image tokens", "dim")
    for detection in result.detections:
        expected = "" if detection.expected_iou is None else f"  expected IoU {detection.expected_iou:.2f}"
        made = "" if detection.box == result.candidates[detection.candidate].box else "  made out of several boxes"
        say(f"  box {_corners(detection.box)}  {_score(result, detection.score)}{expected}{made}", "green")
    if not result.detections:
        say(f"  no detection: {named_as_options(result.reason, make_parser())}", "yellow")
    if result.candidates:
        console.print(_table(result))
    else:
        for text, count in _texts(result).items():
            say(f"  {count} x {text}", "dim")
    time = f", {result.timing_ms.get('total', 0.0):.0f} ms" if with_time else ""
    if result.window:
        again = ", ".join(str(i) for i, c in enumerate(result.candidates) if c.look) or "none"
        say(f"second look at {_corners(result.window)}: candidates {again}", "dim")
    for left_out in result.skipped:
        say(f"skipped: {left_out}", "yellow")
    kind = result.score_kind.value.replace("_", " ")
    say(f"{result.selector}, score: {kind}, seed {result.seed}{time}", "dim")


def _table(result: GroundingResult) -> Table:
    """Return the table of candidates, narrow enough for most reasons to fit on one line of 80 columns."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("", "#", "resp", "x1", "y1", "x2", "y2", "quality", "score"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why")
    parser = make_parser()
    rows = sorted(enumerate(result.candidates), key=lambda r: (r[1].outcome is not Outcome.SELECTED, -r[1].quality))
    for index, c in rows:
        style = {Outcome.SELECTED: "green", Outcome.BELOW_THRESHOLD: "yellow"}.get(c.outcome, "")
        score = "-" if result.score_kind is ScoreKind.NONE else f"{c.score:.2f}"
        mark = "*" if c.outcome is Outcome.SELECTED else ""
        corners = (f"{v:.1f}" for v in c.box.as_tuple())
        why = named_as_options(c.reason, parser)
        table.add_row(mark, str(index), str(c.response), *corners, f"{c.quality:.2f}", score, why, style=style)
    return table


def _texts(result: GroundingResult, limit: int = 3) -> dict[str, int]:
    """Return the distinct response texts with their counts, shortened and printable, the most frequent ``limit``."""
    counts: dict[str, int] = {}
    for response in result.responses:
        text = repr(response.text[:120] + ("..." if len(response.text) > 120 else ""))
        counts[text] = counts.get(text, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1])[:limit])

"""Check of a model's checkpoint, as a report to send back: what only real weights can show.

It checks that prompts have the ids of the processor's own chat template, that coordinates are attributed to the right
tokens, that attention maps equal those of eager attention, and that pictures stay within their budget; it measures
the speed, and asks in which frame the model states coordinates (:mod:`acs_core.bench.frames`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from acs_core.artifacts.identity import ModelIdentity
from acs_core.bench.frames import (
    OBJECT,
    Ask,
    FrameReport,
    ask_frames,
    assumed_frame,
    explain_frames,
    greedy_answer,
    render_questions,
)
from acs_core.bench.measure import MachineInfo, size_mb
from acs_core.bench.methods import Work, eager, our_maps
from acs_core.bench.pictures import FRAMES, PictureCost, cost_of
from acs_core.bench.subject import subject_of
from acs_core.generation.candidates import decode_with_tokens, parse_response
from acs_core.lvlm.base import LoadedLVLM
from acs_core.lvlm.prompt import localization_prompt

PHRASES = ("key", 'a "red" mug', "Schlüssel", "鍵 🔑")
SMALL_FRAME = (448, 448)  # of the maps: eager attention keeps all of it
MAP_SAMPLES, MAP_TOKENS = 2, 16
MAP_GAP = 1e-4  # largest difference of two attention weights in float32
MAP_CORRELATION = 0.95  # in other dtypes, whose rounding differs in every layer: median over the maps
SHARES = "0-1"  # the frame that is read right, whatever frame is assumed (ParsedBox.in_frame)
# Numbers of one to four digits, with signs and fractions, in the notations of the families.
STATEMENTS = (
    '[{"bbox_2d": [7, 42, 358, 1207], "label": "key"}]',
    '```json\n[\n  {"bbox_2d": [100, 250, 999, 1000], "label": "key"}\n]\n```',
    '[{"bbox_2d":[0.125,0.5,0.75,0.9],"label":"key"}]',
    "<box>[[12, 345, 678, 901]]</box>",
    "(12,345),(678,901)",
)


@dataclass(frozen=True)
class ModelCheck:
    """Result of one check.

    Attributes:
        name: what was checked.
        passed: the verdict; None if there is none.
        said: the result in a sentence.
        numbers: JSON values behind it.
    """

    name: str
    passed: bool | None
    said: str
    numbers: dict[str, Any]

    @property
    def verdict(self) -> str:
        """The verdict as a word."""
        return {True: "passed", False: "FAILED", None: "no verdict"}[self.passed]


@dataclass(frozen=True)
class ModelReport:
    """Report on a checkpoint.

    Attributes:
        model: name, revision, family, sizes and loading options.
        machine: the machine and its libraries.
        checks: the results.
    """

    model: dict[str, Any]
    machine: MachineInfo
    checks: tuple[ModelCheck, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the failed checks."""
        return tuple(check.name for check in self.checks if check.passed is False)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        checks = [{"name": c.name, "passed": c.passed, "said": c.said, "numbers": c.numbers} for c in self.checks]
        return {"model": self.model, "machine": self.machine.to_dict(), "checks": checks}


def check_model(
    lvlm: LoadedLVLM,
    samples: int = 10,
    new_tokens: int = 40,
    repeats: int = 3,
    frames: Sequence[tuple[int, int]] = FRAMES,
    phrase: str = OBJECT,
    ask: Ask = greedy_answer,
    say: Callable[[str], None] = lambda _: None,
) -> ModelReport:
    """Run all checks of a loaded model. A check that ends in an error has no verdict; the others are done nevertheless.

    Args:
        lvlm: the model.
        samples: number of responses N for the speed.
        new_tokens: tokens of each of these responses.
        repeats: runs of each measurement of the speed.
        frames: (width, height) of the pictures for budget and speed.
        phrase: what the rendered pictures are asked about.
        ask: returns the model's answer to a phrase about an image, and whether the model ended it.
        say: called with what is checked next.
    """
    todo: dict[str, Callable[[], ModelCheck]] = {
        "prompt": partial(check_prompt, lvlm),
        "token rule": partial(check_token_rule, lvlm),
        "attention maps": partial(check_maps, lvlm),
        "picture budget": partial(check_budget, lvlm, frames),
        "coordinate frame": partial(check_frame, lvlm, phrase, ask),
        "speed": partial(check_speed, lvlm, frames, samples, new_tokens, repeats, say),
    }
    model_name = ModelIdentity.of(lvlm).model  # without the path of a folder
    checks = []
    for name, check in todo.items():
        say(name)
        try:
            checks.append(check())
        except Exception as error:  # of any part of a model that nobody has run before: the report is about that
            reason = (str(error).strip().splitlines() or [""])[0].replace(lvlm.name, model_name)
            checks.append(ModelCheck(name, None, f"not done: {type(error).__name__}: {reason}", {}))
    model = {
        "name": model_name,
        "revision": lvlm.revision,
        "family": lvlm.family,
        "layers": lvlm.num_layers,
        "heads": lvlm.num_heads,
        "weights_mb": round(size_mb(lvlm.hf_model)),
        "device": str(lvlm.device),
        "dtype": str(lvlm.hf_model.dtype).removeprefix("torch."),
        "max_image_tokens": lvlm.picture.max_image_tokens,
        "coordinate_frame": lvlm.picture.coordinate_frame,
    }
    return ModelReport(model, MachineInfo.here(lvlm.device), tuple(checks))


def check_prompt(lvlm: LoadedLVLM) -> ModelCheck:
    """Compare the prompts' ids and pixel inputs with those of the processor's own chat template."""
    picture = noise_picture(640, 480)
    differing: dict[str, int] = {}
    other_pixels: list[str] = []
    for phrase in PHRASES:
        content = [{"type": "image"}, {"type": "text", "text": localization_prompt(phrase)}]
        text = lvlm.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        own = lvlm.processor(images=[picture], text=text, return_tensors="pt")
        prompt = lvlm.prepare(picture, phrase)
        ours_ids, own_ids = prompt.input_ids[0].tolist(), own["input_ids"][0].tolist()
        if ours_ids != own_ids:
            pairs = zip(ours_ids, own_ids, strict=False)
            differing[phrase] = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours_ids), len(own_ids)))
        if not all(torch.equal(value.cpu(), own[name]) for name, value in prompt.vision.items()):
            other_pixels.append(phrase)
    said = f"{len(PHRASES) - len(differing)} of {len(PHRASES)} prompts have the ids of the processor's chat template"
    if differing:
        said += "; differing from position " + ", ".join(f"{at} on ({phrase})" for phrase, at in differing.items())
    if other_pixels:
        said += "; other pixels for " + ", ".join(f"({phrase})" for phrase in other_pixels)
    numbers = {"phrases": len(PHRASES), "differing": differing, "other_pixels": other_pixels}
    return ModelCheck("prompt", not differing and not other_pixels, said, numbers)


def check_token_rule(lvlm: LoadedLVLM) -> ModelCheck:
    """Check that the token to which each coordinate is attributed is the one whose decoding writes its first digit.

    Statements that lose a digit when they are decoded fail, too. Special tokens, such as ``<box>`` of InternVL, are no
    part of the text of a response.
    """
    decode = partial(lvlm.tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    wrong: list[str] = []
    undecoded: list[str] = []
    lengths: list[int] = []
    total = 0
    for statement in STATEMENTS:
        ids = lvlm.tokenizer(statement, add_special_tokens=False)["input_ids"]
        text, writers = decode_with_tokens(lvlm.tokenizer, ids)
        if text != decode(ids) or _digits(text) != _digits(statement):
            undecoded.append(f"{statement!r} is decoded as {text!r}")
            continue
        for box in parse_response(text):
            for start in box.starts:
                total += 1
                token = writers[start]
                before, after = len(decode(ids[:token])), len(decode(ids[: token + 1]))
                digits = len(text[start:]) - len(text[start:].lstrip("0123456789.-"))
                last = writers[start + digits - 1]
                lengths.append(last - token + 1)
                if not before <= start < after:
                    wrong.append(f"character {start} of {text!r} is attributed to token {token}")
    found = sorted(set(lengths))
    said = f"{total - len(wrong)} of {total} coordinates are attributed to the token that writes their first digit"
    if found:
        said += f"; a number takes {found[0]} to {found[-1]} tokens"
    if undecoded:
        said += f"; {len(undecoded)} of {len(STATEMENTS)} statements are decoded as another text: {undecoded[0]}"
    if wrong:
        said += "; " + wrong[0]
    passed = not wrong and not undecoded and total > 0
    numbers = {"coordinates": total, "tokens_per_number": found, "wrong": wrong, "undecoded": undecoded}
    return ModelCheck("token rule", passed, said, numbers)


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


def check_maps(lvlm: LoadedLVLM) -> ModelCheck:
    """Compare attention maps with those of ``generate`` with eager attention, on the same tokens."""
    subject = subject_of(lvlm, SMALL_FRAME)
    work = Work.of(lvlm, subject.prompts[0], subject.words, MAP_SAMPLES, MAP_TOKENS)
    stock, found = eager(work), our_maps(work)
    gap = float(np.abs(stock - found).max())
    a, b = (m.reshape(-1, m.shape[-1] * m.shape[-2]).astype(np.float64) for m in (stock, found))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    varied = scale > 0
    correlation = float(np.median((a * b).sum(axis=1)[varied] / scale[varied])) if varied.any() else 1.0
    exact = lvlm.hf_model.dtype == torch.float32
    passed = gap <= MAP_GAP if exact else correlation >= MAP_CORRELATION
    said = (
        f"{len(a)} maps of {found.shape[-2]} x {found.shape[-1]} cells differ from eager attention by at most "
        f"{gap:.2g}, with a median correlation of {correlation:.4f} (wanted: "
        + (f"a difference of at most {MAP_GAP:g})" if exact else f"a correlation of at least {MAP_CORRELATION:g})")
    )
    return ModelCheck("attention maps", passed, said, {"maps": len(a), "largest_gap": gap, "correlation": correlation})


def check_budget(lvlm: LoadedLVLM, frames: Sequence[tuple[int, int]] = FRAMES) -> ModelCheck:
    """Check that pictures of ``frames`` take no more image tokens than the budget."""
    budget = lvlm.picture.max_image_tokens
    rows: list[dict[str, Any]] = []
    for width, height in frames:
        prompt = lvlm.prepare(noise_picture(width, height), "key")
        size = list(prompt.input_size) if prompt.input_size else None
        rows.append({"frame": f"{width}x{height}", "input_size": size, "image_tokens": prompt.image_tokens})
    most = max(row["image_tokens"] for row in rows)
    said = f"at most {most} image tokens, the budget is {'that of the processor' if budget is None else budget}"
    return ModelCheck("picture budget", None if budget is None else most <= budget, said, {"rows": rows})


def check_frame(lvlm: LoadedLVLM, phrase: str = OBJECT, ask: Ask = greedy_answer) -> ModelCheck:
    """Check that acs reads coordinates in the frame which explains the model's answers."""
    answers = ask_frames(lvlm, render_questions(), phrase, ask)
    report = explain_frames(answers, assumed_frame(lvlm, answers))
    return ModelCheck("coordinate frame", _frame_verdict(report), _frame_text(report), report.to_dict())


def _frame_verdict(report: FrameReport) -> bool | None:
    return report.found in (report.assumed, SHARES) if report.found else None


def _frame_text(report: FrameReport) -> str:
    if not report.found:
        return (
            f"acs assumes {report.assumed or 'a frame of its own'}; the answers do not tell the frame: {report.reason}"
        )
    best, second = report.fits[:2]
    said = (
        f"{best.frame} explains the answers best, with a mean IoU of {best.mean_iou:.2f} "
        f"(next {second.frame}, {second.mean_iou:.2f})"
    )
    if report.found == report.assumed:
        return f"{said}; acs assumes that, too"
    if report.found == SHARES:
        return f"{said}; acs reads such numbers as shares of the picture in any frame"
    return f"{said}; acs assumes {report.assumed or 'another'}: load the model with coordinate_frame {report.found}"


def check_speed(
    lvlm: LoadedLVLM,
    frames: Sequence[tuple[int, int]],
    samples: int,
    new_tokens: int,
    repeats: int,
    say: Callable[[str], None] = lambda _: None,
) -> ModelCheck:
    """Measure calls with ACS-Free about pictures of ``frames``; there is no verdict."""
    rows: list[PictureCost] = []
    for frame in frames:
        subject = subject_of(lvlm, frame)
        budget = lvlm.picture.max_image_tokens
        rows.append(cost_of(subject, frame, budget, samples, new_tokens, repeats, rows, say))
    slowest = max(rows, key=lambda row: row.seconds)
    said = (
        f"N = {samples} responses of {new_tokens} tokens take {rows[0].seconds:.2f} s for {rows[0].frame} and up to "
        f"{slowest.seconds:.2f} s ({slowest.frame})"
    )
    numbers = {"samples": samples, "new_tokens": new_tokens, "rows": [row.to_dict() for row in rows]}
    return ModelCheck("speed", None, said, numbers)


def noise_picture(width: int, height: int) -> np.ndarray:
    """Return noise of a fixed seed, (height, width, 3) uint8."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)

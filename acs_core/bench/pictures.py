"""Cost of a call for pictures of several sizes, at the limit of the model's processor and within a budget of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from acs_core.artifacts.registry import resolve_model
from acs_core.bench.measure import measure
from acs_core.bench.methods import Work, ours
from acs_core.bench.subject import Subject, load_subject, random_prompts, shapes, subject_of, tokens_of_frame
from acs_core.errors import BenchError
from acs_core.lvlm import load_lvlm
from acs_core.lvlm.picture import PictureOptions
from acs_core.types import MAX_IMAGE_TOKENS

FRAMES = ((640, 480), (1280, 720), (1920, 1080), (3840, 2160))


@dataclass(frozen=True)
class PictureCost:
    """Cost of a call with ACS-Free about a picture.

    Attributes:
        frame: "WIDTHxHEIGHT" of the picture in pixels.
        max_image_tokens: the budget; None for the processor's own limit.
        input_size: (width, height) in pixels to which the processor resized it; None for random weights, which have no
            processor.
        image_tokens: number of image tokens.
        prompt_tokens: number of tokens of the whole prompt.
        reading_ms: time of the prefill in milliseconds.
        seconds: time of the whole call in seconds.
        added_mb: peak memory in MB in addition to that of the weights; None if unknown.
    """

    frame: str
    max_image_tokens: int | None
    input_size: tuple[int, int] | None
    image_tokens: int
    prompt_tokens: int
    reading_ms: float
    seconds: float
    added_mb: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return {**asdict(self), "input_size": self.input_size and list(self.input_size)}


def picture_costs(
    shape: str,
    frames: Sequence[tuple[int, int]],
    max_image_tokens: int | None,
    samples: int,
    new_tokens: int,
    device: str,
    dtype: str,
    repeats: int = 1,
    say: Callable[[str], None] = lambda _: None,
) -> list[PictureCost]:
    """Measure calls about pictures of ``frames``, (width, height) each, with the processor's own limit and with a
    budget.

    Args:
        shape: shape of random weights, model name, folder or hub id.
        frames: sizes of the pictures.
        max_image_tokens: the budget; None for the default of the model's family.
        samples: number of responses N.
        new_tokens: tokens of each response.
        device: torch device.
        dtype: dtype of the weights.
        repeats: runs of each measurement; the median is reported.
        say: called with what is measured next.

    Raises:
        BenchError, ModelError: the model cannot be made or loaded, or its family has no limit of tokens.
    """
    if shape in shapes():
        return _of_random_weights(shape, frames, max_image_tokens, samples, new_tokens, device, dtype, repeats, say)
    rows: list[PictureCost] = []
    for budget in (MAX_IMAGE_TOKENS, max_image_tokens):
        say(f"loading {shape}")
        lvlm = load_lvlm(resolve_model(shape), device=device, dtype=dtype, max_image_tokens=budget)
        told = None if budget == MAX_IMAGE_TOKENS else lvlm.picture.max_image_tokens
        rows += [
            cost_of(subject_of(lvlm, frame), frame, told, samples, new_tokens, repeats, rows, say) for frame in frames
        ]
        del lvlm  # two large models would not fit into memory
    return rows


def cost_of(
    subject: Subject,
    frame: tuple[int, int],
    budget: int | None,
    samples: int,
    new_tokens: int,
    repeats: int,
    known: Sequence[PictureCost] = (),
    say: Callable[[str], None] = lambda _: None,
) -> PictureCost:
    """Measure calls about the subject's picture, unless a row of ``known`` has a prompt of the same length: the cost
    does not depend on what the picture shows."""
    prompt, name = subject.prompts[0], f"{frame[0]}x{frame[1]}"
    tokens = int((prompt.input_ids == subject.lvlm.hf_model.config.image_token_id).sum())
    for row in known:
        if row.image_tokens == tokens and row.prompt_tokens == prompt.length:
            return replace(row, frame=name, max_image_tokens=budget, input_size=prompt.input_size)
    say(f"{name}: {tokens} image tokens")
    work, selector = Work.of(subject.lvlm, prompt, subject.words, samples, new_tokens), subject.free()
    ours(work, selector)
    measured = measure(lambda: ours(work, selector), subject.lvlm.device, repeats)
    reading = measured.value.stages_ms["reading"]
    return PictureCost(
        name, budget, prompt.input_size, tokens, prompt.length, reading, measured.seconds, measured.added_mb
    )


def _of_random_weights(
    shape: str,
    frames: Sequence[tuple[int, int]],
    max_image_tokens: int | None,
    samples: int,
    new_tokens: int,
    device: str,
    dtype: str,
    repeats: int,
    say: Callable[[str], None],
) -> list[PictureCost]:
    family, _ = shapes()[shape]
    budget = PictureOptions(max_image_tokens).max_image_tokens or family.max_image_tokens
    if budget is None:
        raise BenchError(f"the family {family.name} has no budget of its own: name one with --max-image-tokens")
    say(f"making {shape}")
    made = load_subject(shape, 256, 1, device, dtype)
    rows: list[PictureCost] = []
    for limit in (None, budget):
        for frame in frames:
            tokens = tokens_of_frame(shape, *frame, limit)
            subject = replace(made, prompts=random_prompts(made.lvlm, tokens))
            rows.append(cost_of(subject, frame, limit, samples, new_tokens, repeats, rows, say))
    return rows

"""A loaded LVLM: one transformers model with its processor, and the family's knowledge about them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from acs_core.errors import ImageError, ModelError
from acs_core.geometry import Box
from acs_core.image import check_image
from acs_core.lvlm.base import DecodeGraphs, Family, Prompt, Values
from acs_core.lvlm.prompt import PromptBuilder, localization_prompt
from acs_core.phrase import clean_phrase


@dataclass(frozen=True)
class LoadedLVLM:
    """Implements :class:`acs_core.lvlm.base.LVLM`; made by :func:`acs_core.lvlm.load_lvlm`."""

    name: str
    revision: str | None
    adapter: Family
    hf_model: Any
    processor: Any
    builder: PromptBuilder
    eos_ids: tuple[int, ...]
    pad_id: int
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False, compare=False)
    graphs: DecodeGraphs = field(default_factory=DecodeGraphs, repr=False, compare=False)

    @property
    def family(self) -> str:
        """``internvl`` or ``qwen2_5_vl``."""
        return self.adapter.name

    @property
    def num_layers(self) -> int:
        """Layers L of the language model."""
        return self.hf_model.config.text_config.num_hidden_layers

    @property
    def num_heads(self) -> int:
        """Query heads K per layer."""
        return self.hf_model.config.text_config.num_attention_heads

    @property
    def text_model(self) -> Any:
        """The language model, without vision tower and output head."""
        return self.hf_model.model.language_model

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer."""
        return self.processor.tokenizer

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.hf_model.device

    def prepare(self, image: np.ndarray, phrase: str) -> Prompt:
        """The prompt for one phrase; see :meth:`prepare_many`."""
        return self.prepare_many(image, [phrase])[0]

    def prepare_many(self, image: np.ndarray, phrases: Sequence[str]) -> tuple[Prompt, ...]:
        """The prompts of paper appendix D for an RGB image (H, W, 3) uint8, their tensors on the model's device. They
        share the picture's pixels.

        Raises:
            ImageError: see :func:`acs_core.image.check_image`; or the model's own image processor refuses it.
            PhraseError: a phrase cannot be asked.
        """
        phrases = [clean_phrase(phrase) for phrase in phrases]
        picture = check_image(image)
        height, width = picture.shape[:2]
        try:
            inputs = self.processor(
                images=[picture],
                text=self.processor.image_token,
                images_kwargs={"input_data_format": "channels_last"},
                text_kwargs={"add_special_tokens": False},
                return_tensors="pt",
            )
        except ValueError as error:
            raise ImageError(
                f"the model's image processor refuses a picture of {width} x {height} pixels ({error}): crop or "
                "resize it"
            ) from error
        image_ids = inputs["input_ids"][0].tolist()
        vision = {name: self._to_device(inputs[name]) for name in self.processor.image_processor.model_input_names}
        return tuple(self._prompt(phrase, image_ids, vision, (width, height)) for phrase in phrases)

    def _prompt(
        self, phrase: str, image_ids: list[int], vision: Mapping[str, torch.Tensor], image_size: tuple[int, int]
    ) -> Prompt:
        ids = self.builder.build(localization_prompt(phrase), image_ids)
        expected = image_ids.count(self.builder.image_id)
        if ids.count(self.builder.image_id) != expected:
            raise ModelError(
                f"the prompt does not hold the {expected} image tokens of its picture: check the tokenizer"
            )
        input_ids = torch.tensor([ids], device=self.device)  # (1, S)
        layout = self.adapter.layout(self.hf_model, self.processor, input_ids, vision)
        return Prompt(
            phrase=phrase,
            input_ids=input_ids,
            position_ids=layout.position_ids,
            vision=vision,
            map_slice=layout.map_slice,
            grid=layout.grid,
            image_size=image_size,
            frame_size=layout.frame_size,
        )

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.device.type != "cuda":
            return tensor.to(self.device)
        # From pinned memory the copy runs beside what the GPU and this thread do next.
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def to_pixels(self, prompt: Prompt, values: Values) -> Box:
        """Four answered numbers, in the model's frame, as a box in pixels of the original image, not clipped."""
        sx = prompt.image_size[0] / prompt.frame_size[0]
        sy = prompt.image_size[1] / prompt.frame_size[1]
        x1, y1, x2, y2 = values
        return Box(x1 * sx, y1 * sy, x2 * sx, y2 * sy)

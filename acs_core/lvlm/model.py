"""A loaded LVLM: one transformers model with its processor, and the family's knowledge about them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from acs_core.errors import ImageError, ModelError
from acs_core.geometry import Box
from acs_core.image import check_image
from acs_core.lvlm.base import Family, Prompt, Values
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
        """The prompt of paper appendix D for an RGB image (H, W, 3) uint8, its tensors on the model's device.

        Raises:
            ImageError: see :func:`acs_core.image.check_image`; or the model's own image processor refuses it.
            PhraseError: the phrase cannot be asked.
        """
        picture = check_image(image)
        phrase = clean_phrase(phrase)
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
        ids = self.builder.build(localization_prompt(phrase), inputs["input_ids"][0].tolist())
        input_ids = torch.tensor([ids], device=self.device)  # (1, S)
        expected = int((inputs["input_ids"] == self.builder.image_id).sum())
        if int((input_ids == self.builder.image_id).sum()) != expected:
            raise ModelError(
                f"the prompt does not hold the {expected} image tokens of its picture: check the tokenizer"
            )
        vision = {name: inputs[name].to(self.device) for name in self.processor.image_processor.model_input_names}
        layout = self.adapter.layout(self.hf_model, self.processor, input_ids, vision)
        return Prompt(
            phrase=phrase,
            input_ids=input_ids,
            position_ids=layout.position_ids,
            vision=vision,
            map_slice=layout.map_slice,
            grid=layout.grid,
            image_size=(width, height),
            frame_size=layout.frame_size,
        )

    def to_pixels(self, prompt: Prompt, values: Values) -> Box:
        """Four answered numbers, in the model's frame, as a box in pixels of the original image, not clipped."""
        sx = prompt.image_size[0] / prompt.frame_size[0]
        sy = prompt.image_size[1] / prompt.frame_size[1]
        x1, y1, x2, y2 = values
        return Box(x1 * sx, y1 * sy, x2 * sx, y2 * sy)

"""Interface of a large vision-language model (LVLM), its prompts, and the interface of a model family.

:class:`LVLM` is the interface that the rest of the package uses, and :class:`LoadedLVLM` implements it with a model and
processor of transformers. :class:`Family` is the part that differs between model families: the position and grid of the
image tokens, the rope positions, and the frame in which the model states coordinates.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch

from acs_core.arguments import clean_phrase
from acs_core.artifacts.identity import ModelInfo
from acs_core.device_array import upload
from acs_core.errors import ImageError, ModelError
from acs_core.geometry import Box
from acs_core.image import check_image
from acs_core.lvlm.device_pixels import DevicePixels
from acs_core.lvlm.picture import PictureOptions, frame_sizes
from acs_core.lvlm.prompt import PromptBuilder, localization_prompt
from acs_core.lvlm.shapes import ModelShape, RandomPicture
from acs_core.types import FAMILY_FRAME

Values = tuple[float, float, float, float]
# Frames of coordinates: 0-1000 of the whole picture's width and height, or pixels of the resized picture.
RELATIVE, RESIZED = "0-1000", "resized"


@dataclass(frozen=True)
class Prompt:
    """One phrase and one image as model inputs; tensors are on the model's device.

    Attributes:
        phrase: the cleaned phrase.
        input_ids: (1, S) token ids.
        position_ids: (1, S), or (3, 1, S) for a rope with three axes.
        vision: pixel inputs of the forward.
        map_slice: (start, stop) of the image tokens that form the attention map, row by row.
        grid: (Hv, Wv), size of the attention map.
        image_size: (width, height) of the original image in pixels.
        frame_size: (width, height) of the frame in which the model states coordinates.
        input_size: (width, height) in pixels of the picture as the processor resized it; None for random pixel inputs.
        image_tokens: number of image tokens; 0 likewise.
        image_ids: ids of the start token, the image tokens and the end token; empty likewise.
        host_ids: the S token ids on the host; empty if they are on the device only.
        host_next: :attr:`next_position` on the host; None likewise.
    """

    phrase: str
    input_ids: torch.Tensor
    position_ids: torch.Tensor
    vision: Mapping[str, torch.Tensor]
    map_slice: tuple[int, int]
    grid: tuple[int, int]
    image_size: tuple[int, int]
    frame_size: tuple[float, float]
    input_size: tuple[int, int] | None = None
    image_tokens: int = 0
    image_ids: tuple[int, ...] = ()
    host_ids: tuple[int, ...] = ()
    host_next: int | None = None

    @property
    def length(self) -> int:
        """Number of prompt tokens S."""
        return self.input_ids.shape[1]

    @property
    def next_position(self) -> int:
        """Rope position of the first response token; later tokens count up from it on all axes."""
        return int(self.position_ids.max()) + 1 if self.host_next is None else self.host_next

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The S token ids on the host."""
        return self.host_ids or tuple(self.input_ids[0].tolist())


@dataclass(frozen=True)
class Layout:
    """Place and grid of the map in a prompt, rope positions, and the frame of answers: the family's part of a
    :class:`Prompt`."""

    position_ids: torch.Tensor
    map_slice: tuple[int, int]
    grid: tuple[int, int]
    frame_size: tuple[float, float]


class Family(ABC):
    """The part of an adapter that differs between model families; see :mod:`acs_core.lvlm.internvl` for an example. It
    holds no state.

    Attributes:
        name: ``model_type`` of ``config.json``.
        processor_class: the processor of transformers without its video half. In transformers 5.23 ``AutoProcessor``
            cannot load the processors of the families here where torchvision is missing, because they take a video
            processor and every video processor imports torchvision. The class bears the name of its parent, so that a
            folder it saves names the real class and ``AutoProcessor`` reads it where torchvision is installed.
        frame: the frame in which the family's models state coordinates, :data:`RELATIVE` or :data:`RESIZED`.
        frame_source: address of the public page or paper that says so.
        image_processor_class: the image processor with the PIL backend, whatever name the files of a model give it;
            None for the class that they name.
        former_processors: other names of that class, from other releases of transformers, without "Fast" or "Pil".
        map_size: (h, w) in cells that attention maps are resized to for collections and regressors (paper appendix
            A.3); None where every picture has a map of the same size, which is then kept as it is.
        shapes: sizes that ``acs-bench`` can make with random weights, by their short names; they must differ from those
            of the other families.
        max_image_tokens: default budget of image tokens of a picture; None for the processor's own limit.
    """

    name: str
    processor_class: Any
    frame: str
    frame_source: str
    image_processor_class: Any = None
    former_processors: tuple[str, ...] = ()
    map_size: tuple[int, int] | None = None
    shapes: Mapping[str, ModelShape] = MappingProxyType({})
    max_image_tokens: int | None = None

    def check_config(self, config: Mapping[str, Any]) -> None:  # noqa: B027 - as below
        """Raises ModelError when ``config``, the contents of ``config.json``, describes a model that the adapter cannot
        read; called before any weight is read."""

    def check(self, model: Any, processor: Any) -> None:  # noqa: B027 - most families assume nothing more
        """Check that the configuration and the processor of a checkpoint fit the adapter; by default there is nothing
        to check beyond what every family is checked for. It is called before the weights are read.

        Args:
            model: anything with the ``config`` of the model: its :class:`acs_core.lvlm.source.ModelSource`.
            processor: the processor.

        Raises:
            ModelError: they do not fit.
        """

    @abstractmethod
    def layout(self, hf_model: Any, input_ids: torch.Tensor, vision: Mapping[str, Any]) -> Layout:
        """The layout of a prompt ``input_ids`` (1, S) with its pixel inputs; ids and grids are on the host."""

    def generate_inputs(self, hf_model: Any, input_ids: torch.Tensor) -> dict[str, Any]:
        """Arguments of ``generate`` of transformers beside ``input_ids`` (1, S), their mask and the pixel inputs."""
        return {}

    def limit_picture(self, processor: Any, tokens: int) -> None:
        """Lower the limits of ``processor`` to ``tokens`` image tokens per picture (:mod:`acs_core.lvlm.picture`).
        Raises ModelError if no picture takes so few or, by default, because the family has no such limit."""
        raise ModelError(f"the family {self.name} has no limit of image tokens: leave max_image_tokens out")

    def input_size(self, processor: Any, vision: Mapping[str, Any], image_size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) in pixels to which ``processor`` resized a picture of ``image_size`` for the pixel inputs
        ``vision``, thumbnails left out; by default ``image_size``."""
        return image_size

    def device_pixels(
        self, processor: Any, picture: np.ndarray, device: torch.device, resize_there: bool = True
    ) -> DevicePixels | None:
        """What ``processor`` makes of a picture (H, W, 3) uint8, by operations on ``device``; by default None, for a
        family or a processor that :mod:`acs_core.lvlm.device_pixels` does not know. Pillow resizes on the host unless
        ``resize_there``. ValueError if the processor refuses the picture."""
        return None

    def tower_inputs(self, tower: Any, vision: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of the forward of the vision tower, beside the pixel inputs ``vision``, that it otherwise computes
        on the host from the size of the picture: with them, it can be recorded. By default none."""
        return {}

    def image_tokens(self, config: Any, width: int, height: int, max_tokens: int | None = None) -> int:
        """Number of image tokens that the processor of a model with this ``config`` makes of a picture, with its usual
        limits and at most ``max_tokens``. A family with :attr:`shapes` needs it."""
        raise NotImplementedError(f"the family {self.name} has no models of random weights")

    def random_picture(self, config: Any, tokens: int, generator: torch.Generator) -> RandomPicture:
        """Noise of about ``tokens`` image tokens for a model with this ``config``; BenchError if the smallest picture
        has more. A family with :attr:`shapes` needs it."""
        raise NotImplementedError(f"the family {self.name} has no models of random weights")


@dataclass
class DecodeGraphs:
    """Cache of what is recorded of one model: its decode steps (:mod:`acs_core.generation.cuda_graph`), and the forward
    of its vision tower (:mod:`acs_core.generation.vision_graph`)."""

    kept: dict[Any, Any] = field(default_factory=dict)  # by their sizes, the most recently used last
    usable: bool = True  # False after a recording has failed
    fused: bool | None = None  # whether projections are fused before a recording; None: on a GPU
    kernel: bool | None = None  # whether Triton kernels compute the attention; None: on a GPU that has Triton
    towers: dict[Any, Any] = field(default_factory=dict)  # by the size of the picture, the most recently used last
    sizes: dict[Any, int] = field(default_factory=dict)  # how often pictures of each came before, the latest last
    vision: bool | None = None  # whether the vision tower is recorded; None: on a GPU. False after that has failed

    def free(self) -> None:
        """Free the buffers of all recordings, and forget the sizes of pictures."""
        self.kept.clear()
        self.towers.clear()
        self.sizes.clear()


class LVLM(ModelInfo, Protocol):
    """A loaded model.

    Sampling and attention capture hold ``lock``, so that threads may share one LVLM.
    """

    @property
    def hf_model(self) -> Any:
        """The transformers model."""

    @property
    def text_model(self) -> Any:
        """Its language model, without vision tower and output head."""

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer."""

    @property
    def device(self) -> torch.device:
        """Torch device of the weights."""

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids of the tokens that end a response."""

    @property
    def pad_id(self) -> int:
        """Id of the padding token."""

    @property
    def graphs(self) -> DecodeGraphs:
        """Cache of what is recorded on a GPU."""

    @property
    def learned(self) -> dict[str, Any]:
        """What stages learn about the model for later calls (:func:`acs_core.generation.speculation.drafts_of`)."""

    @property
    def adapter(self) -> Family:
        """The family's part of the model."""

    @property
    def picture(self) -> PictureOptions:
        """Budget of image tokens and frame of the coordinates."""

    @property
    def lock(self) -> threading.RLock:
        """Lock that is held while the model runs."""

    def prepare(self, image: np.ndarray, phrase: str) -> Prompt:
        """Return the prompt of paper appendix D for an RGB image (H, W, 3) uint8. Raises ImageError, PhraseError."""

    def prepare_many(self, image: np.ndarray, phrases: Sequence[str]) -> tuple[Prompt, ...]:
        """Return one prompt per phrase about the same image; the prompts share its pixel inputs."""

    def rephrase(self, prompt: Prompt, phrase: str) -> Prompt:
        """Return the prompt for another phrase about the image of ``prompt``, without pixel inputs. Raises
        PhraseError."""

    def to_pixels(self, prompt: Prompt, values: Values) -> Box:
        """Convert four numbers of a response into a box in pixels of the original image, not clipped."""


@dataclass(frozen=True)
class LoadedLVLM:
    """Implementation of :class:`LVLM` with a transformers model; see :func:`acs_core.lvlm.load_lvlm`."""

    name: str
    revision: str | None
    adapter: Family
    hf_model: Any
    processor: Any
    builder: PromptBuilder
    eos_ids: tuple[int, ...]
    pad_id: int
    picture: PictureOptions = field(default_factory=PictureOptions)
    # Whether the device prepares pictures; None: Pillow resizes for a CPU. False: the image processor does all of it.
    pixels_on_device: bool | None = None
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False, compare=False)
    graphs: DecodeGraphs = field(default_factory=DecodeGraphs, repr=False, compare=False)
    learned: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def family(self) -> str:
        """Name of the family, for example ``internvl``."""
        return self.adapter.name

    @property
    def num_layers(self) -> int:
        """Number of layers L of the language model."""
        return self.hf_model.config.text_config.num_hidden_layers

    @property
    def num_heads(self) -> int:
        """Number of query heads K per layer."""
        return self.hf_model.config.text_config.num_attention_heads

    @property
    def hidden_size(self) -> int:
        """Width of the language model's hidden states."""
        return self.hf_model.config.text_config.hidden_size

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
        """Torch device of the weights."""
        return self.hf_model.device

    def prepare(self, image: np.ndarray, phrase: str) -> Prompt:
        """Return the prompt for one phrase; see :meth:`prepare_many`."""
        return self.prepare_many(image, [phrase])[0]

    def prepare_many(self, image: np.ndarray, phrases: Sequence[str]) -> tuple[Prompt, ...]:
        """Return the prompts of paper appendix D for an RGB image, one per phrase; they share its pixel inputs.

        Args:
            image: (H, W, 3) uint8.
            phrases: the phrases.

        Raises:
            ImageError: see :func:`acs_core.image.check_image`; or the model's image processor rejects the image.
            PhraseError: a phrase cannot be used.
        """
        phrases = [clean_phrase(phrase) for phrase in phrases]
        picture = check_image(image)
        height, width = picture.shape[:2]
        try:
            made = self._pixels(picture)
        except ValueError as error:
            raise ImageError(
                f"the model's image processor refuses a picture of {width} x {height} pixels ({error}): crop or "
                "resize it"
            ) from error
        return tuple(self._prompt(phrase, made, (width, height)) for phrase in phrases)

    def _pixels(self, picture: np.ndarray) -> DevicePixels:
        """Return the pixel inputs for a picture (H, W, 3) uint8; ValueError if the image processor refuses it."""
        if self.pixels_on_device is not False:
            resize_there = self.pixels_on_device or self.device.type != "cpu"
            made = self.adapter.device_pixels(self.processor, picture, self.device, resize_there)
            if made is not None:
                return made
        inputs = self.processor(
            images=[picture],
            text=self.processor.image_token,
            images_kwargs={"input_data_format": "channels_last"},
            text_kwargs={"add_special_tokens": False},
            return_tensors="pt",
        )
        pixels = {name: inputs[name] for name in self.processor.image_processor.model_input_names}
        vision = {name: upload(tensor, self.device) for name, tensor in pixels.items()}
        return DevicePixels(vision, pixels, inputs["input_ids"][0].tolist())

    def _prompt(self, phrase: str, made: DevicePixels, image_size: tuple[int, int]) -> Prompt:
        image_ids, vision, pixels = made.image_ids, made.vision, made.shapes
        ids = self.builder.build(localization_prompt(phrase), image_ids)
        expected = image_ids.count(self.builder.image_id)
        if ids.count(self.builder.image_id) != expected:
            raise ModelError(
                f"the prompt does not hold the {expected} image tokens of its picture: check the tokenizer"
            )
        input_ids = torch.tensor([ids])  # (1, S)
        layout = self.adapter.layout(self.hf_model, input_ids, pixels)
        input_size = self.adapter.input_size(self.processor, pixels, image_size)
        frame = self.picture.coordinate_frame
        return Prompt(
            phrase=phrase,
            input_ids=upload(input_ids, self.device),
            position_ids=upload(layout.position_ids, self.device),
            vision=vision,
            map_slice=layout.map_slice,
            grid=layout.grid,
            image_size=image_size,
            frame_size=layout.frame_size if frame == FAMILY_FRAME else frame_sizes(input_size, image_size)[frame],
            input_size=input_size,
            image_tokens=expected,
            image_ids=tuple(image_ids),
            host_ids=tuple(ids),
            host_next=int(layout.position_ids.max()) + 1,
        )

    def rephrase(self, prompt: Prompt, phrase: str) -> Prompt:
        """Return the prompt for another phrase about the image of ``prompt``, without pixel inputs: for a forward over
        the tokens after the image.

        Args:
            prompt: a prompt of :meth:`prepare_many`.
            phrase: the phrase.

        Raises:
            PhraseError: the phrase cannot be used.
        """
        phrase = clean_phrase(phrase)
        ids = self.builder.build(localization_prompt(phrase), list(prompt.image_ids))
        # The text after the image counts up on all axes, whatever it is: the positions are cut, or go on.
        kept = min(prompt.length, len(ids))
        more = len(ids) - kept
        later = prompt.next_position + torch.arange(more, device=self.device)
        position_ids = torch.cat(
            [prompt.position_ids[..., :kept], later.expand(*prompt.position_ids.shape[:-1], more)], dim=-1
        )
        return replace(
            prompt,
            phrase=phrase,
            input_ids=upload([ids], self.device),
            position_ids=position_ids,
            vision={},
            host_ids=tuple(ids),
            host_next=prompt.next_position + len(ids) - prompt.length,
        )

    def to_pixels(self, prompt: Prompt, values: Values) -> Box:
        """Convert four numbers in the model's frame into a box in pixels of the original image, not clipped."""
        sx = prompt.image_size[0] / prompt.frame_size[0]
        sy = prompt.image_size[1] / prompt.frame_size[1]
        x1, y1, x2, y2 = values
        return Box(x1 * sx, y1 * sy, x2 * sx, y2 * sy)

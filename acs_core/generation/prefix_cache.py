"""Prefilled images: the part of a prompt before the phrase, kept for later phrases about the same image.

The prompt has the image first and the phrase after it, so that keys and values up to the phrase do not depend on it.
A :class:`PrefixCache` keeps them for the images that were used last, within a bound of memory. A later prompt about one
of them needs neither the image processor nor the vision tower, only a forward over the tokens from the phrase on.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache

from acs_core.generation.prefill import PrefillState, joined, prefill, read_end, read_prefix
from acs_core.generation.shared_cache import CacheSegment, use_shared_prefix_attention
from acs_core.generation.speculation import AnswerDrafts
from acs_core.lvlm.base import LVLM, Prompt
from acs_core.types import DEFAULT_PREFIX_BYTES, ShouldStop

# Two phrases whose tokens differ from the first on: what their prompts share is the part before the phrase.
_PROBES = ("a", "zebra")


@dataclass(frozen=True)
class ImagePrefix:
    """The prefilled tokens of an image.

    Attributes:
        prompt: a prompt about the image, without its pixel inputs.
        ids: the tokens that are kept.
        segment: their keys and values.
    """

    prompt: Prompt
    ids: tuple[int, ...]
    segment: CacheSegment

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return sum(t.numel() * t.element_size() for t in (*self.segment.keys, *self.segment.values))


class PrefixCache:
    """The prefixes of the images that were used last; callers hold the model's lock.

    Args:
        max_bytes: maximum number of bytes of all prefixes; an image that needs more is not kept.
    """

    def __init__(self, max_bytes: int = DEFAULT_PREFIX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[bytes, ImagePrefix] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Bytes of all prefixes."""
        return sum(prefix.nbytes for prefix in self._kept.values())

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._kept)

    def touch(self, image: np.ndarray) -> None:
        """Count ``image`` (H, W, 3) uint8 as the one that was used last, if it is kept."""
        self._find(_digest(image))

    def clear(self) -> None:
        """Forget all images."""
        self._kept.clear()

    def prepare(self, lvlm: LVLM, image: np.ndarray, phrases: Sequence[str]) -> tuple[Prompt, ...]:
        """Return the prompts of :meth:`LVLM.prepare_many`; without pixel inputs if the image (H, W, 3) uint8 is kept.

        Raises:
            ImageError, PhraseError: see :meth:`LVLM.prepare_many`.
        """
        kept = self._find(_digest(image))
        if kept is None:
            return lvlm.prepare_many(image, phrases)
        return tuple(lvlm.rephrase(kept.prompt, phrase) for phrase in phrases)

    def prefill(
        self,
        lvlm: LVLM,
        image: np.ndarray,
        prompts: Sequence[Prompt],
        should_stop: ShouldStop | None = None,
        drafts: AnswerDrafts | None = None,
    ) -> PrefillState:
        """Return the state of :func:`acs_core.generation.prefill.prefill` for the prompts of :meth:`prepare`, and keep
        the image.

        Raises:
            Cancelled: ``should_stop`` returned True.
        """
        key = _digest(image)
        with lvlm.lock, torch.inference_mode(), use_shared_prefix_attention(lvlm):
            kept = self._find(key)
            if kept is None:
                shared = _length_before_phrase(lvlm, prompts[0])
                image_token = lvlm.hf_model.config.image_token_id
                if image_token in prompts[0].token_ids[shared:]:  # a template with the text before the image
                    return prefill(lvlm, prompts, should_stop, drafts)
                segment = read_prefix(lvlm, prompts[0], shared, should_stop)
                ids = prompts[0].token_ids[:shared]
                kept = ImagePrefix(lvlm.rephrase(prompts[0], prompts[0].phrase), ids, segment)
                self._keep(key, kept)
            shared = min(_common(kept.ids, prompt.token_ids) for prompt in prompts)
            prefix = CacheSegment(
                tuple(k[:, :shared] for k in kept.segment.keys), tuple(v[:, :shared] for v in kept.segment.values)
            )
            ends = [read_end(lvlm, prompt, shared, _cache_of(prefix), should_stop, drafts) for prompt in prompts]
        return joined(prompts, prefix, ends)

    def _find(self, key: bytes) -> ImagePrefix | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def _keep(self, key: bytes, prefix: ImagePrefix) -> None:
        if prefix.nbytes > self.max_bytes:
            return
        self._kept[key] = prefix
        while self.nbytes > self.max_bytes:
            self._kept.popitem(last=False)


def _digest(image: np.ndarray) -> bytes:
    """Return a digest of size and pixels of an image (H, W, 3) uint8: the array may change, or come again as a copy."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, person=f"{image.shape[1]}".encode()[:16]).digest()


def _length_before_phrase(lvlm: LVLM, prompt: Prompt) -> int:
    """Return the number of tokens before the phrase in prompts about the image of ``prompt``."""
    first, second = (lvlm.rephrase(prompt, probe).token_ids for probe in _PROBES)
    return min(_common(first, second), prompt.length - 1)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the number of tokens that both begin with, leaving at least one token of ``b``."""
    most = min(len(a), len(b) - 1)
    return next((i for i in range(most) if a[i] != b[i]), most)


def _cache_of(segment: CacheSegment) -> DynamicCache:
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(zip(segment.keys, segment.values, strict=True)):
        cache.update(keys[None], values[None], layer)
    return cache

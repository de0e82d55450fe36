"""Small random models of every family: real transformers classes, processors, chat templates and files on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from acs_core.lvlm.internvl import InternVLProcessor
from acs_core.lvlm.prompt import localization_prompt
from acs_core.lvlm.qwen2_5_vl import Qwen2_5_VLProcessor
from acs_core.lvlm.qwen2_vl import Qwen2VLProcessor
from acs_core.lvlm.qwen3_vl import Qwen3VLProcessor

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ 'IMAGE' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
SYSTEM_TURN = "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"  # as Qwen2-VL's template begins
INTERNVL_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
QWEN_TOKENS = {
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
}


def tokenizer(named: dict[str, str], digits_apart: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that knows the prompt's words; without ``digits_apart`` it has tokens like ", 15"."""
    bpe = Tokenizer(models.BPE())
    split = r"\d|\n| ?(?:key|dog)" if digits_apart else r"\n|\[|\]|,? ?[0-9]+"
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=80,
    )
    bpe.train_from_iterator([localization_prompt(name) for name in ("key", "dog")] * 2, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=named
    )
    fast.add_tokens([AddedToken("<|im_start|>", special=True), AddedToken("<tool_call>", special=False)])
    return fast


def save_internvl(
    folder: Path, max_patches: int = 1, seed: int = 0, scale: float = 0.25, text_model: str = "qwen3", layers: int = 3
) -> Path:
    """A random InternVL of 3 layers x 4 heads (2 key groups), 42 px tiles of 3 x 3 image tokens."""
    tok = tokenizer(INTERNVL_TOKENS)
    image = GotOcr2ImageProcessorPil(size={"height": 42, "width": 42}, max_patches=max_patches)
    template = TEMPLATE.replace("IMAGE", "<IMG_CONTEXT>\n")
    InternVLProcessor(image, tok, image_seq_length=9, chat_template=template).save_pretrained(folder)
    config = InternVLConfig(
        vision_config={
            "hidden_size": 16,
            "num_hidden_layers": layers - 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "image_size": [42, 42],
            "patch_size": [7, 7],
        },
        text_config={
            "model_type": text_model,
            "vocab_size": len(tok),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 4096,
            **_ends(tok),
        },
        image_token_id=tok.context_image_token_id,
        image_seq_length=9,
    )
    return _save(InternVLForConditionalGeneration, config, folder, seed, scale)


def save_qwen2_5_vl(folder: Path, seed: int = 0, scale: float = 0.25, layers: int = 3) -> Path:
    """A random Qwen2.5-VL of 3 layers x 4 heads (2 key groups), 14 px patches merged 2 x 2."""
    tok = tokenizer(QWEN_TOKENS)
    image = Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 24})
    template = TEMPLATE.replace("IMAGE", QWEN_IMAGE)
    Qwen2_5_VLProcessor(image, tok, chat_template=template).save_pretrained(folder)
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": layers - 1,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
            "window_size": 56,
        },
        text_config={**_qwen_text(tok), "num_hidden_layers": layers},
        **_qwen_ids(tok),
    )
    return _save(Qwen2_5_VLForConditionalGeneration, config, folder, seed, scale)


def save_qwen2_vl(folder: Path, seed: int = 0, scale: float = 0.25) -> Path:
    """A random Qwen2-VL of 3 layers x 4 heads (2 key groups), 14 px patches merged 2 x 2, with a system turn."""
    tok = tokenizer(QWEN_TOKENS)
    image = Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 24})
    template = SYSTEM_TURN + TEMPLATE.replace("IMAGE", QWEN_IMAGE)
    Qwen2VLProcessor(image, tok, chat_template=template).save_pretrained(folder)
    config = Qwen2VLConfig(
        vision_config={"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2},
        text_config=_qwen_text(tok),
        **_qwen_ids(tok),
    )
    return _save(Qwen2VLForConditionalGeneration, config, folder, seed, scale)


def save_qwen3_vl(folder: Path, seed: int = 0, scale: float = 0.25) -> Path:
    """A random Qwen3-VL of 3 layers x 4 heads (2 key groups), 16 px patches merged 2 x 2; DeepStack adds the features
    of two vision layers after the first two layers of the language model."""
    tok = tokenizer(QWEN_TOKENS)
    image = Qwen2VLImageProcessorPil(patch_size=16, size={"shortest_edge": 64 * 64, "longest_edge": 32 * 32 * 24})
    template = TEMPLATE.replace("IMAGE", QWEN_IMAGE)
    Qwen3VLProcessor(image, tok, chat_template=template).save_pretrained(folder)
    text = _qwen_text(tok)
    config = Qwen3VLConfig(
        vision_config={
            "depth": 3,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        text_config={
            **text,
            "head_dim": 8,
            "rope_parameters": {**text["rope_parameters"], "mrope_interleaved": True},
        },
        **_qwen_ids(tok),
    )
    return _save(Qwen3VLForConditionalGeneration, config, folder, seed, scale)


SAVERS = {
    "internvl": save_internvl,
    "qwen2_vl": save_qwen2_vl,
    "qwen2_5_vl": save_qwen2_5_vl,
    "qwen3_vl": save_qwen3_vl,
}


def _qwen_text(tok: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tok),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
        **_ends(tok),
    }


def _qwen_ids(tok: PreTrainedTokenizerFast) -> dict[str, int]:
    return {
        "image_token_id": tok.image_token_id,
        "video_token_id": tok.video_token_id,
        "vision_start_token_id": tok.vision_start_token_id,
        "vision_end_token_id": tok.vision_end_token_id,
    }


def _ends(tok: PreTrainedTokenizerFast) -> dict[str, int]:
    return {"eos_token_id": tok.eos_token_id, "pad_token_id": tok.pad_token_id, "bos_token_id": tok.eos_token_id}


def _save(cls: type, config: object, folder: Path, seed: int, scale: float) -> Path:
    """Saves random weights that are large enough for attention to be far from even, and answers to vary."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = cls(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=scale)
    # What a checkpoint may bring along and the engine must not follow.
    model.generation_config.repetition_penalty = 1.7
    model.save_pretrained(folder)
    return folder

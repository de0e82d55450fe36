"""Other ways to sample N responses: transformers with the prompt prefilled once, its continuous batching, and
CTranslate2.

The last two take token ids only, so they run the language model alone on a prompt of the same length
(:func:`acs_core.bench.whole_call.text_alone`), and draw their own tokens. Our engine on that prompt
(:func:`ours_on_text`) is what to compare them with.
"""

from __future__ import annotations

import importlib
import itertools
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

from acs_core.bench.methods import DRAWN, DrawnThenForced, Work, attention_as, forced_tokens, generation_config
from acs_core.errors import BenchError
from acs_core.generation.generate import generate
from acs_core.generation.prefill import cache_name, prefill
from acs_core.lvlm.base import LVLM

NOT_INSTALLED = "not installed: pip install ctranslate2"
_CTRANSLATE2_LOADERS = {"qwen2": "Qwen2Loader", "qwen3": "Qwen3Loader"}  # by the language model
_TEXT_SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "max_position_embeddings", "rms_norm_eps"),
)
_LOGGER = "ContinuousBatchingLogger"
_PAGE = 256  # tokens of a page of the cache of continuous batching, as by default

Sample = Callable[[], Any]


def prefilled_once(work: Work, **settings: Any) -> Any:
    """Run the stock model once over the prompt without its last token, repeat the cache N times, and let ``generate``
    with SDPA go on from there; ``settings`` are further ones of it. Returns its output."""
    lvlm, prompt, n = work.lvlm, work.prompt, len(work.responses)
    model, ids = lvlm.hf_model, prompt.input_ids
    name = cache_name(model.__class__)
    own = lvlm.adapter.generate_inputs(model, ids)
    with attention_as(lvlm, "sdpa"), torch.inference_mode():
        out = model(
            input_ids=ids[:, :-1],
            attention_mask=torch.ones_like(ids[:, :-1]),
            use_cache=True,
            logits_to_keep=1,
            **{key: value[:, :-1] for key, value in own.items()},
            **prompt.vision,
        )
        cache = getattr(out, name)
        cache.batch_repeat_interleave(n)
        rows = ids.repeat(n, 1)
        return model.generate(
            input_ids=rows,
            attention_mask=torch.ones_like(rows),
            generation_config=generation_config(work, n, **settings),
            logits_processor=forced_tokens(work, n),
            **{name: cache},
            **{key: value.repeat(n, 1) for key, value in own.items()},
        )


def ours_on_text(work: Work) -> Any:
    """Generate the responses of ``work`` token by token, really drawing, without attention; returns them."""
    state = prefill(work.lvlm, [work.prompt])
    return generate(work.lvlm, state, DrawnThenForced.of(work), len(work.responses), work.new_tokens)


@contextmanager
def continuous_batching(work: Work) -> Iterator[Sample]:
    """Yield a call of ``generate_batch`` of transformers for N responses of T tokens; its manager and cache are kept
    between calls. The first token of the prompt is another one in every call, so that no call finds the pages of the
    one before.

    Raises:
        BenchError: this release of transformers has no ``generate_batch``; from the call: responses are missing.
    """
    model = work.lvlm.hf_model
    settings = getattr(transformers, "ContinuousBatchingConfig", None)
    if settings is None or not hasattr(model, "generate_batch"):
        raise BenchError(f"transformers {transformers.__version__} has no continuous batching")
    n, tokens = len(work.responses), work.new_tokens
    config = _endless(work, n)
    pages = n * (-(-(work.prompt.length + tokens) // _PAGE) + 2)
    batching = settings(page_size=_PAGE, num_blocks=pages, max_batch_tokens=max(work.prompt.length, 512))
    ids = work.prompt.input_ids[0].tolist()
    first = itertools.cycle(sorted(set(ids)))
    log = logging.getLogger(_LOGGER)
    level = log.level
    log.setLevel(logging.ERROR)  # it warns in every call that its manager is kept

    def sample() -> Any:
        found = model.generate_batch(
            [[next(first), *ids[1:]]],
            generation_config=config,
            continuous_batching_config=batching,
            persistent_manager=True,
        )
        wrong = next((one.error for one in found.values() if one.error), None)
        short = [one for one in found.values() if len(one.generated_tokens) != tokens]
        if wrong or short or len(found) != n:
            raise BenchError(f"continuous batching gave {len(found) - len(short)} of {n} responses: {wrong}")
        return found

    try:
        yield sample
    finally:
        log.setLevel(level)
        model.destroy_cached_continuous_batching_manager()
        model.set_attn_implementation("sdpa")


def _endless(work: Work, n: int) -> transformers.GenerationConfig:
    """Settings to draw ``n`` responses that no token ends."""
    config = generation_config(work, max(n, 2), num_return_sequences=n)
    config.eos_token_id = -1
    return config


@contextmanager
def ctranslate2_generator(lvlm: LVLM, threads: int) -> Iterator[Callable[..., Any]]:
    """Convert the language model for CTranslate2, into a temporary folder, and yield a function that samples the N
    responses of T tokens of a work with it, from the ``top_k`` likeliest tokens; it returns their token ids.

    Args:
        lvlm: the model; its weights are not changed.
        threads: CPU threads.

    Raises:
        BenchError: CTranslate2 is not installed, or its converter does not take the language model.
    """
    try:
        ctranslate2 = importlib.import_module("ctranslate2")
        loaders = importlib.import_module("ctranslate2.converters.transformers")
    except ImportError as error:
        raise BenchError(NOT_INSTALLED) from error
    device = lvlm.device
    half = {torch.bfloat16: "bfloat16", torch.float16: "float16"}
    with tempfile.TemporaryDirectory(prefix="acs-bench-") as folder:
        _convert(lvlm, loaders, Path(folder))
        generator = ctranslate2.Generator(
            folder,
            device=device.type,
            device_index=device.index or 0,
            compute_type=half.get(next(lvlm.hf_model.parameters()).dtype, "float32"),
            inter_threads=1,
            intra_threads=threads,
        )

    def sample(work: Work, top_k: int = DRAWN.top_k) -> Any:
        n, tokens = len(work.responses), work.new_tokens
        (found,) = generator.generate_batch(
            [[_token(i) for i in work.prompt.input_ids[0].tolist()]],
            num_hypotheses=n,
            sampling_temperature=DRAWN.temperature,
            sampling_topk=top_k,
            sampling_topp=DRAWN.top_p,
            min_length=tokens,
            max_length=tokens,
            include_prompt_in_result=False,
        )
        if [len(ids) for ids in found.sequences_ids] != [tokens] * n:
            raise BenchError(f"CTranslate2 gave other lengths than {n} times {tokens} tokens")
        return found.sequences_ids

    try:
        yield sample
    finally:
        generator.unload_model()


def _convert(lvlm: LVLM, loaders: Any, folder: Path) -> None:
    """Write the language model into ``folder`` in the format of CTranslate2."""
    text = lvlm.hf_model.config.text_config
    kind = "qwen3" if "qwen3" in text.model_type else "qwen2" if "qwen2" in text.model_type else text.model_type
    if kind not in _CTRANSLATE2_LOADERS:
        raise BenchError(f"no conversion of the language model {text.model_type} is known here")
    sizes = {name: getattr(text, name) for name in _TEXT_SIZES}
    rope = {"rope_type": "default", "rope_theta": text.rope_parameters["rope_theta"]}
    config_class: Any = transformers.Qwen3Config if kind == "qwen3" else transformers.Qwen2Config
    model_class: Any = transformers.Qwen3ForCausalLM if kind == "qwen3" else transformers.Qwen2ForCausalLM
    if kind == "qwen3":
        sizes["head_dim"] = text.head_dim
    # The converter takes the language model's own class, and removes its layers: one without weights gets ours.
    with torch.device("meta"):
        model = model_class(config_class(**sizes, rope_parameters=rope))
    weights = {f"model.{key}": value.cpu() for key, value in lvlm.text_model.state_dict().items()}
    weights["lm_head.weight"] = lvlm.hf_model.get_output_embeddings().weight.detach().cpu()
    model.load_state_dict(weights, assign=True)
    with torch.no_grad():
        spec = getattr(loaders, _CTRANSLATE2_LOADERS[kind])().get_model_spec(model)
    spec.register_vocabulary([_token(i) for i in range(text.vocab_size)])
    spec.config.bos_token = spec.config.unk_token = _token(lvlm.pad_id)
    spec.config.eos_token = _token(lvlm.eos_ids[0])
    spec.config.layer_norm_epsilon = text.rms_norm_eps
    spec.validate()
    spec.optimize(quantization=None)
    spec.save(str(folder))


def _token(index: int) -> str:
    return f"t{index}"

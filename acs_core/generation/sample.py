"""A fixed number of responses, without a schedule or deadline: for training, analysis and benchmarks.

:mod:`acs_core.generation.schedule` samples those of a :class:`acs_core.grounder.Grounder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from acs_core.errors import NonFiniteError
from acs_core.generation.generate import Generations, fresh_seed, generate
from acs_core.generation.prefill import PrefillState, prefill, stack_states
from acs_core.generation.speculation import drafts_of
from acs_core.generation.token_sampler import GreedySampler, TeacherForcing, TokenSampler, TopPSampler
from acs_core.lvlm.base import LVLM, Prompt
from acs_core.types import BROKEN, SamplingConfig, ShouldStop


def sample_responses(
    lvlm: LVLM,
    prompt: Prompt,
    config: SamplingConfig,
    should_stop: ShouldStop | None = None,
    forced: Sequence[Sequence[int]] | None = None,
    token_statistics: bool = False,
) -> Generations:
    """Sample N responses with the temperature, top-p, top-k and seed of ``config``.

    Args:
        lvlm: the model.
        prompt: the prompt.
        config: sampling parameters.
        should_stop: checked once per token; True cancels the call.
        forced: token ids of every response, without end tokens, to decode instead of sampling (teacher forcing).
        token_statistics: whether to keep the entropy and log-probability of every token.

    Raises:
        Cancelled: ``should_stop`` returned True.
        NonFiniteError: the logits of the model are NaN or infinite.
        ValueError: the number of rows of ``forced`` is not ``config.num_samples``.
    """
    if forced is not None and len(forced) != config.num_samples:
        raise ValueError(f"forced has {len(forced)} rows for {config.num_samples} samples: the numbers must be equal")
    seed = fresh_seed() if config.seed is None else config.seed
    drafts = drafts_of(lvlm) if config.speculation else None
    state = prefill(lvlm, [prompt], should_stop, drafts)
    rows = range(config.num_samples)
    sampler: TokenSampler
    if forced is not None:
        sampler, limit = TeacherForcing(forced, lvlm.eos_ids[0]), max(map(len, forced)) + 1
    else:
        sampler, limit = TopPSampler.of(config, [seed], rows), config.max_new_tokens
    written = generate(
        lvlm,
        state,
        sampler,
        len(rows),
        limit,
        should_stop=should_stop,
        token_statistics=token_statistics,
        drafts=drafts,
    )
    return replace(_whole(written[0]), seed=seed)


def greedy_response(
    lvlm: LVLM,
    prompt: Prompt,
    max_new_tokens: int = 256,
    should_stop: ShouldStop | None = None,
    token_statistics: bool = False,
    speculation: bool = True,
) -> Generations:
    """Decode the most likely response (N = 1, seed 0).

    Raises:
        Cancelled: ``should_stop`` returned True.
        NonFiniteError: the logits of the model are NaN or infinite.
    """
    drafts = drafts_of(lvlm) if speculation else None
    (written,) = generate(
        lvlm,
        prefill(lvlm, [prompt], should_stop, drafts),
        GreedySampler(),
        1,
        max_new_tokens,
        should_stop=should_stop,
        token_statistics=token_statistics,
        drafts=drafts,
    )
    return _whole(written)


def sample_each(
    lvlm: LVLM,
    prefill_states: Sequence[PrefillState],
    config: SamplingConfig | None,
    seeds: Sequence[int],
    max_new_tokens: int = 256,
    token_statistics: bool = False,
) -> tuple[Generations, ...]:
    """Sample responses to several prompts about any images, each with its own seed.

    Equal, up to rounding, to :func:`sample_responses` for each prompt, or to :func:`greedy_response` if ``config`` is
    None. On a CPU all prompts are decoded in one batch.

    Args:
        lvlm: the model.
        prefill_states: prefill of each prompt, one prompt per state.
        config: sampling parameters; None for greedy decoding.
        seeds: seed of each prompt.
        max_new_tokens: maximum number of tokens of a greedy response.
        token_statistics: whether to keep the entropy and log-probability of every token.

    Raises:
        NonFiniteError: the logits of the model are NaN or infinite.
    """
    n, limit = (config.num_samples, config.max_new_tokens) if config else (1, max_new_tokens)
    drafts = drafts_of(lvlm) if config is None or config.speculation else None

    def sampler(seeds: Sequence[int]) -> TokenSampler:
        return TopPSampler.of(config, seeds, range(n)) if config else GreedySampler()

    written: list[Generations] = []
    if lvlm.device.type == "cuda":  # a CUDA graph decodes one prompt
        for state, seed in zip(prefill_states, seeds, strict=True):
            written += generate(
                lvlm, state, sampler([seed]), n, limit, token_statistics=token_statistics, drafts=drafts
            )
    else:
        written += generate(
            lvlm,
            stack_states(prefill_states),
            sampler(seeds),
            n,
            limit,
            token_statistics=token_statistics,
            drafts=drafts,
        )
    return tuple(
        replace(_whole(samples), state=state, prompt=0, seed=seed if config else 0)
        for samples, state, seed in zip(written, prefill_states, seeds, strict=True)
    )


def _whole(samples: Generations) -> Generations:
    """Return ``samples``, or raise NonFiniteError if they are broken."""
    if samples.broken:
        raise NonFiniteError(f"{BROKEN}; try float32, or get the weights again")
    return samples

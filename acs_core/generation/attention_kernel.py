"""Attention of a decode step as Triton kernels: one softmax over the shared prefix, the prompt's suffix and own tokens.

The same computation in operations of PyTorch (:meth:`acs_core.generation.static_rows.StaticRows.attend`) takes a dozen
of them, reads all slots of the buffers whether they are written or not, and stores the scores. Here are two launches,
and no scores leave the processor:

1. The prefix, in splits that are computed side by side. The rows of all responses are multiplied with a split at once,
   so that its keys and values are read once and not once per response.
2. The rows of each response with the suffix of its prompt and with its own tokens, which continues the softmax of the
   splits: partial results are rescaled to the same largest score.

All lengths are read on the device, so that the launches can be recorded in a CUDA graph and replayed for prompts of
other lengths. Scores and sums are float32. The module imports ``triton``, which PyTorch installs where it is built for
CUDA; it is imported only where the kernels are used. With ``TRITON_INTERPRET=1`` they run on a CPU, slowly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
MOST_SPLITS, LEAST_SPLIT = 16, 128  # splits of the prefix; tokens of a split
MOST_ROWS = 64  # rows of a program; the number of heads of a group is not a power of two in many models
# Of the keys of a block and of the rows of a program: the rows and two stages of keys and values fit into 48 kB, the
# memory of a program on small GPUs, up to 128 channels of float32 and 256 of the other types.
_KEY_BYTES, _ROW_BYTES = 8192, 16384
_LEAST_SIDE = 16  # of the matrices that the processor multiplies
_LOG2_E = 1.4426950408889634


@dataclass(frozen=True)
class KeysAndValues:
    """Keys and values in buffers of which the first slots are in use.

    Attributes:
        keys, values: contiguous, (G, S, D) for all rows, (P, G, S, D) by prompt, or (N, G, S, D) by row.
        used: int64 on the device: (1,) or (P,) number of slots in use; of own tokens, (N, W) the last slot that each
            fed token attends to, ascending in W.
    """

    keys: torch.Tensor
    values: torch.Tensor
    used: torch.Tensor


def decode_attention(
    query: torch.Tensor, prefix: KeysAndValues, suffix: KeysAndValues | None, own: KeysAndValues, scaling: float
) -> torch.Tensor:
    """Attend with ``query`` (N, K, W, D), rows ordered by prompt, to the prompts and to the rows' own tokens.

    Args:
        query: K heads, in K / G heads for each of the G groups of keys; float16, bfloat16 or float32.
        prefix: what the prompts have in common, S slots; there may be none.
        suffix: further tokens of the P prompts of N / P rows each; None if no prompt has any.
        own: the rows' own tokens.
        scaling: factor of the products of queries and keys.

    Returns:
        (N, W, K, D) in the dtype of ``query``.
    """
    n, heads, width, dim = query.shape
    groups, capacity, _ = prefix.keys.shape
    query = query if query.stride(3) == 1 else query.contiguous()
    each = heads // groups * width
    block_dim, block_keys, most_rows = block_sizes(dim, query.element_size())
    split = max(LEAST_SPLIT, triton.cdiv(triton.cdiv(capacity, MOST_SPLITS), block_keys) * block_keys)
    splits = triton.cdiv(capacity, split)
    partial = query.new_empty(splits, n, heads, width, dim, dtype=torch.float32)
    # Largest score, in bits, and sum of the weights relative to it.
    top, total = partial.new_empty(2, splits, n, heads, width).unbind()
    # The interpreter multiplies the bytes of bfloat16 as integers.
    as_float32 = query.dtype == torch.bfloat16 and not query.is_cuda
    shape = {
        "scale": scaling * _LOG2_E,
        "n": n,
        "heads": heads,
        "query_n": query.stride(0),
        "query_head": query.stride(1),
        "query_width": query.stride(2),
        "PER_GROUP": heads // groups,
        "WIDTH": width,
        "DIM": dim,
        "BLOCK_DIM": block_dim,
        "BLOCK_KEYS": block_keys,
        "SPLIT": split,
        "AS_FLOAT32": as_float32,
    }
    if splits:
        block_rows = _rows_of_a_program(n * each, most_rows)
        _prefix_kernel[(triton.cdiv(n * each, block_rows), groups, splits)](
            query,
            prefix.keys,
            prefix.values,
            prefix.used,
            partial,
            top,
            total,
            capacity,
            BLOCK_ROWS=block_rows,
            num_stages=2,
            **shape,
        )
    out = query.new_empty(n, width, heads, dim)
    block_rows = _rows_of_a_program(each, most_rows)
    apart = suffix or own
    _own_kernel[(triton.cdiv(each, block_rows), groups, n)](
        query,
        prefix.used,
        partial,
        top,
        total,
        apart.keys,
        apart.values,
        apart.used,
        own.keys,
        own.values,
        own.used,
        out,
        apart.keys.shape[2],
        own.keys.shape[2],
        n // apart.keys.shape[0],
        HAS_PREFIX=splits > 0,
        HAS_SUFFIX=suffix is not None,
        BLOCK_ROWS=block_rows,
        num_stages=2,
        **shape,
    )
    return out


def block_sizes(dim: int, element_size: int) -> tuple[int, int, int]:
    """Return the channels and the keys of a block, and the largest number of rows of a program, for ``dim`` channels of
    ``element_size`` bytes."""
    channels = max(_LEAST_SIDE, triton.next_power_of_2(dim))
    keys, rows = (max(_LEAST_SIDE, size // (channels * element_size)) for size in (_KEY_BYTES, _ROW_BYTES))
    return channels, min(128, keys), min(MOST_ROWS, rows)


def _rows_of_a_program(rows: int, most: int) -> int:
    return min(most, max(_LEAST_SIDE, triton.next_power_of_2(rows)))


@triton.jit
def _prefix_kernel(  # type: ignore[no-untyped-def]
    query,
    keys,
    values,
    used,
    partial,
    top,
    total,
    capacity,
    scale,
    n,
    heads,
    query_n,
    query_head,
    query_width,
    PER_GROUP: tl.constexpr,
    WIDTH: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    SPLIT: tl.constexpr,
    AS_FLOAT32: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    """Attend with a block of the rows of one group, of all responses, to one split of the prefix."""
    group, split = tl.program_id(1), tl.program_id(2)
    index = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    response = index // (PER_GROUP * WIDTH)
    head = group * PER_GROUP + index % (PER_GROUP * WIDTH) // WIDTH
    width = index % WIDTH
    dims = tl.arange(0, BLOCK_DIM)
    is_row = response < n
    is_value = is_row[:, None] & (dims < DIM)[None, :]
    places = response * query_n + head * query_head + width * query_width
    rows = tl.load(query + places[:, None] + dims[None, :], mask=is_value, other=0.0)
    first = split * SPLIT
    last = tl.minimum(first + SPLIT, tl.load(used).to(tl.int32))
    if first < last:
        highest = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
        weights = tl.zeros((BLOCK_ROWS,), tl.float32)
        made = tl.zeros((BLOCK_ROWS, BLOCK_DIM), tl.float32)
        start = group * capacity * DIM
        seen = tl.zeros((BLOCK_ROWS,), tl.int32) + (last - 1)
        highest, weights, made = _attended(
            rows,
            keys + start,
            values + start,
            first,
            last,
            seen,
            scale,
            highest,
            weights,
            made,
            DIM,
            BLOCK_DIM,
            BLOCK_KEYS,
            AS_FLOAT32,
        )
        # (splits, N, K, W) and D
        at = ((split * n + response) * heads + head) * WIDTH + width
        tl.store(top + at, highest, mask=is_row)
        tl.store(total + at, weights, mask=is_row)
        tl.store(partial + at[:, None] * DIM + dims[None, :], made, mask=is_value)


@triton.jit
def _own_kernel(  # type: ignore[no-untyped-def]
    query,
    prefix_used,
    partial,
    top,
    total,
    suffix_keys,
    suffix_values,
    suffix_used,
    own_keys,
    own_values,
    own_seen,
    out,
    suffix_capacity,
    own_capacity,
    rows_of_prompt,
    scale,
    n,
    heads,
    query_n,
    query_head,
    query_width,
    PER_GROUP: tl.constexpr,
    WIDTH: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    SPLIT: tl.constexpr,
    AS_FLOAT32: tl.constexpr,
    HAS_PREFIX: tl.constexpr,
    HAS_SUFFIX: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    """Merge the splits of the rows of one group of one response, and attend to its suffix and its own tokens."""
    group, response = tl.program_id(1), tl.program_id(2)
    groups = tl.num_programs(1)
    index = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    head = group * PER_GROUP + index // WIDTH
    width = index % WIDTH
    dims = tl.arange(0, BLOCK_DIM)
    is_row = index < PER_GROUP * WIDTH
    is_value = is_row[:, None] & (dims < DIM)[None, :]
    places = response * query_n + head * query_head + width * query_width
    rows = tl.load(query + places[:, None] + dims[None, :], mask=is_value, other=0.0)
    highest = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    weights = tl.zeros((BLOCK_ROWS,), tl.float32)
    made = tl.zeros((BLOCK_ROWS, BLOCK_DIM), tl.float32)
    if HAS_PREFIX:
        for split in range(0, tl.cdiv(tl.load(prefix_used).to(tl.int32), SPLIT)):
            at = ((split * n + response) * heads + head) * WIDTH + width
            other = tl.load(top + at, mask=is_row, other=float("-inf"))
            higher = tl.maximum(highest, other)
            base = tl.where(higher == float("-inf"), 0.0, higher)
            before, after = tl.exp2(highest - base), tl.exp2(other - base)
            weights = weights * before + tl.load(total + at, mask=is_row, other=0.0) * after
            more = tl.load(partial + at[:, None] * DIM + dims[None, :], mask=is_value, other=0.0)
            made = made * before[:, None] + more * after[:, None]
            highest = higher
    if HAS_SUFFIX:
        prompt = response // rows_of_prompt
        last = tl.load(suffix_used + prompt).to(tl.int32)
        start = (prompt * groups + group) * suffix_capacity * DIM
        seen = tl.zeros((BLOCK_ROWS,), tl.int32) + (last - 1)
        highest, weights, made = _attended(
            rows,
            suffix_keys + start,
            suffix_values + start,
            0,
            last,
            seen,
            scale,
            highest,
            weights,
            made,
            DIM,
            BLOCK_DIM,
            BLOCK_KEYS,
            AS_FLOAT32,
        )
    seen = tl.load(own_seen + response * WIDTH + width).to(tl.int32)
    last = tl.load(own_seen + response * WIDTH + WIDTH - 1).to(tl.int32) + 1
    start = (response * groups + group) * own_capacity * DIM
    highest, weights, made = _attended(
        rows,
        own_keys + start,
        own_values + start,
        0,
        last,
        seen,
        scale,
        highest,
        weights,
        made,
        DIM,
        BLOCK_DIM,
        BLOCK_KEYS,
        AS_FLOAT32,
    )
    made = made / weights[:, None]
    places = (response * WIDTH + width) * heads + head  # (N, W, K)
    tl.store(out + places[:, None] * DIM + dims[None, :], made.to(out.dtype.element_ty), mask=is_value)


@triton.jit
def _attended(  # type: ignore[no-untyped-def]
    rows,
    keys,
    values,
    first,
    last,
    seen,
    scale,
    highest,
    weights,
    made,
    DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    AS_FLOAT32: tl.constexpr,
):
    """Continue the softmax of ``rows`` over the slots from ``first`` to ``last``, of which each row attends to those up
    to ``seen``. Returns the largest score, the sum of the weights, and the weighted sum of the values."""
    dims = tl.arange(0, BLOCK_DIM)
    is_dim = dims < DIM
    if AS_FLOAT32:
        rows = rows.to(tl.float32)
    for start in range(first, last, BLOCK_KEYS):
        slots = start + tl.arange(0, BLOCK_KEYS)
        is_slot = slots < last  # what lies behind may be NaN
        key = tl.load(keys + slots[None, :] * DIM + dims[:, None], mask=is_slot[None, :] & is_dim[:, None], other=0.0)
        value = tl.load(
            values + slots[:, None] * DIM + dims[None, :], mask=is_slot[:, None] & is_dim[None, :], other=0.0
        )
        if AS_FLOAT32:
            key = key.to(tl.float32)
            value = value.to(tl.float32)
        scores = tl.dot(rows, key, input_precision="ieee") * scale
        scores = tl.where(is_slot[None, :] & (slots[None, :] <= seen[:, None]), scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)  # a row may have seen nothing yet
        before = tl.exp2(highest - base)
        share = tl.exp2(scores - base[:, None])
        weights = weights * before + tl.sum(share, 1)
        made = made * before[:, None] + tl.dot(share.to(value.dtype), value, input_precision="ieee")
        highest = higher
    return highest, weights, made

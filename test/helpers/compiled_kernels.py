"""Compile the attention kernels for a GPU of compute capability 8.0, which need not be there, with the most rows that a
program may have. For each type and number of channels, print whether a kernel multiplies with matrix units, and the
bytes of shared memory of a program."""

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from acs_core.generation import attention_kernel

PARTS = {"PER_GROUP": 7, "WIDTH": 16, "SPLIT": 128, "AS_FLOAT32": False, "HAS_PREFIX": True, "HAS_SUFFIX": True}
STORES = ("keys", "values", "suffix_keys", "suffix_values", "own_keys", "own_values", "query", "out")
KINDS = {
    **dict.fromkeys(("partial", "top", "total"), "*fp32"),
    **dict.fromkeys(("used", "prefix_used", "suffix_used", "own_seen"), "*i64"),
    "scale": "fp32",
}

for store, element_size, dim in (
    ("fp16", 2, 128),
    ("bf16", 2, 128),
    ("bf16", 2, 256),
    ("fp32", 4, 64),
    ("fp32", 4, 128),
):
    channels, keys, rows = attention_kernel.block_sizes(dim, element_size)
    shape = {**PARTS, "DIM": dim, "BLOCK_DIM": channels, "BLOCK_KEYS": keys, "BLOCK_ROWS": rows}
    kinds = {**KINDS, **dict.fromkeys(STORES, f"*{store}")}
    for kernel in (attention_kernel._prefix_kernel, attention_kernel._own_kernel):
        constants = {name: value for name, value in shape.items() if name in kernel.arg_names}
        signature = {name: "constexpr" if name in constants else kinds.get(name, "i32") for name in kernel.arg_names}
        source = ASTSource(kernel, signature, constants)
        made = triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"num_stages": 2})
        print(store, dim, kernel.fn.__name__, "mma.sync" in made.asm["ptx"], made.metadata.shared)

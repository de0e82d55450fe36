"""Compile the attention kernels for a GPU of compute capability 8.0, which need not be there. For each, print whether
it multiplies with matrix units, and the bytes of shared memory of a program."""

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from acs_core.generation import attention_kernel

SHAPE = {"PER_GROUP": 7, "WIDTH": 1, "DIM": 128, "BLOCK_DIM": 128, "BLOCK_KEYS": 32, "SPLIT": 128, "BLOCK_ROWS": 16}
PARTS = {"HAS_PREFIX": True, "HAS_SUFFIX": True}
STORES = ("keys", "values", "suffix_keys", "suffix_values", "own_keys", "own_values", "query", "out")
KINDS = {
    **dict.fromkeys(("partial", "top", "total"), "*fp32"),
    **dict.fromkeys(("used", "prefix_used", "suffix_used", "own_seen"), "*i64"),
    **dict.fromkeys(STORES, "*bf16"),
    "scale": "fp32",
}

for kernel in (attention_kernel._prefix_kernel, attention_kernel._own_kernel):
    constants = {n: v for n, v in {**SHAPE, **PARTS, "AS_FLOAT32": False}.items() if n in kernel.arg_names}
    signature = {name: "constexpr" if name in constants else KINDS.get(name, "i32") for name in kernel.arg_names}
    source = ASTSource(kernel, signature, constants)
    made = triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"num_stages": 2})
    print(kernel.fn.__name__, "mma.sync" in made.asm["ptx"], made.metadata.shared)

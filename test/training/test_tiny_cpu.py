"""The CPU's training attention against the fused kernel that it stands in for; the heap that keeps what was freed."""

import ctypes
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from training.tiny.cpu import row_by_row_attention


@settings(max_examples=25)
@given(st.integers(1, 3), st.sampled_from([(2, 1), (4, 2), (3, 3)]), st.integers(1, 9), st.booleans())
def test_attention_equals_the_fused_kernel(batch, heads, length, masked):
    generator = torch.Generator().manual_seed(length)
    q, k, v = (torch.randn(batch, h, length, 8, generator=generator) for h in (heads[0], heads[1], heads[1]))
    mask = torch.ones(length, length, dtype=torch.bool).tril()[None, None] if masked else None
    ours = row_by_row_attention(q, k, v, mask, scaling=0.3)
    theirs = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(ours, theirs.transpose(1, 2), atol=1e-5, rtol=1e-5)


FAULTS = """
import resource
from training.tiny.cpu import kept_heap

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        bytearray(64 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

resident = lambda: int(open("/proc/self/statm").read().split()[1])
faults()
plain, size = faults(), resident()
with kept_heap():
    faults()
    kept = faults()
print(plain, kept, faults(), resident() - size)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="a setting of glibc")
def test_a_kept_heap_takes_no_new_pages_for_what_was_freed_and_gives_them_back():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, timeout=300, check=True)
    plain, kept, afterwards, grown = map(int, done.stdout.split())  # in pages
    assert kept < 100 < plain and afterwards > 100
    assert grown < (32 << 20) // 4096

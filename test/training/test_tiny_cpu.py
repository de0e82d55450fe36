"""The CPU's training attention against the fused kernel that it stands in for."""

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

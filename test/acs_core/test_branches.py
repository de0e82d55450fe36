"""Attention to one copy of the prompt equals attention of rows that each hold it."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from acs_core.branches import Branches, LastQueries, Segment, branch_attention

HEADS, GROUPS, DIM = 4, 2, 8
MODULE = SimpleNamespace(layer_idx=0, is_causal=True, num_key_value_groups=HEADS // GROUPS)


def segment(length, generator):
    return Segment(*(((torch.randn(GROUPS, length, DIM, generator=generator)),) for _ in range(2)))


def plain(query, keys, values):
    return functional.scaled_dot_product_attention(
        query, keys.repeat_interleave(2, dim=1), values.repeat_interleave(2, dim=1), scale=0.3
    ).transpose(1, 2)


@pytest.mark.parametrize("steps", [3, 70, 140])
@pytest.mark.parametrize(("tails", "counts"), [((None,), (3,)), ((5, 2, 9), (2, 3, 1))])
def test_attention_of_rows_that_grow_and_end(steps, tails, counts):
    generator = torch.Generator().manual_seed(0)
    trunk = segment(11, generator)
    ends = [segment(length, generator) if length else None for length in tails]
    branches = Branches(trunk, ends, counts)
    phrase = [k for k, count in enumerate(counts) for _ in range(count)]
    total = len(phrase)
    prompt = []  # per row: keys and values (G, S, D)
    for k in phrase:
        parts = [trunk, ends[k]] if ends[k] else [trunk]
        prompt.append([torch.cat([getattr(p, what)[0] for p in parts], dim=1) for what in ("keys", "values")])
    own = [[torch.empty(GROUPS, 0, DIM), torch.empty(GROUPS, 0, DIM)] for _ in range(total)]
    running = list(range(total))
    for step in range(steps):
        if step == 2:
            running = [0, total - 1]
            branches.narrow(running)
        query, key, value = (torch.randn(len(running), n, 1, DIM, generator=generator) for n in (HEADS, GROUPS, GROUPS))
        for i, row in enumerate(running):
            own[row] = [torch.cat([own[row][0], key[i]], dim=1), torch.cat([own[row][1], value[i]], dim=1)]
        all_keys, all_values = branches.update(key, value, 0)
        out, _ = branch_attention(MODULE, query, all_keys, all_values, None, 0.3, acs_attending=branches)
        for i, row in enumerate(running):
            keys, values = (torch.cat([prompt[row][k], own[row][k]], dim=1)[None] for k in range(2))
            torch.testing.assert_close(out[i : i + 1], plain(query[i : i + 1], keys, values), atol=1e-5, rtol=1e-4)
            if step in (0, steps - 1):
                assert torch.equal(all_keys[i], own[row][0])
        branches.end_step()
        assert torch.equal(branches.query(running[-1], step)[0], query[-1, :, 0])
    assert branches.length == steps
    assert branches.get_seq_length() == 11 + steps
    assert torch.equal(branches.own_keys(0)[0], own[0][0])


def test_the_prompt_is_stored_once():
    generator = torch.Generator().manual_seed(0)
    trunk = segment(500, generator)
    branches = Branches(trunk, [None], [30])
    key = torch.randn(30, GROUPS, 1, DIM)
    branches.update(key, key, 0)
    assert sum(store.numel() for store in branches.keys) < trunk.keys[0].numel() * 30 / 4
    assert branches.trunk.keys[0] is trunk.keys[0]


def test_without_company_it_is_plain_attention():
    query, key = torch.randn(1, HEADS, 3, DIM), torch.randn(1, GROUPS, 3, DIM)
    out, weights = branch_attention(MODULE, query, key, key, None, 0.3)
    expected = functional.scaled_dot_product_attention(
        query, key.repeat_interleave(2, 1), key.repeat_interleave(2, 1), is_causal=True, scale=0.3
    )
    torch.testing.assert_close(out, expected.transpose(1, 2))
    assert weights is None
    noted = LastQueries()
    assert torch.equal(branch_attention(MODULE, query, key, key, None, 0.3, acs_attending=noted)[0], out)
    assert torch.equal(noted.layers[0], query[:, :, -1])

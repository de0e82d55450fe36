"""The Triton kernels attend like the operations of PyTorch. Here they are interpreted (TRITON_INTERPRET), and
compiled for a GPU that is not there."""

import importlib
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import acs_core.generation.cuda_graph as graphs
import acs_core.generation.generate as sampling
from acs_core.attention import AttentionNeeds, capture
from acs_core.generation.cuda_graph import StaticDecoder, attention_kernel, static_decoder
from acs_core.generation.decoding import CudaGraphDecoder
from acs_core.generation.generate import generate
from acs_core.generation.prefill import prefill
from acs_core.generation.token_sampler import TeacherForcing
from acs_core.geometry import Box
from acs_core.lvlm.base import DecodeGraphs
from acs_core.types import Candidate

ROOT, NAME = Path(__file__).resolve().parents[3], "acs_core.generation.attention_kernel"
TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}


@pytest.fixture(scope="module")
def kernels():
    pytest.importorskip("triton", reason="an environment from before the tests needed triton: make env")
    return importlib.import_module(NAME)


@pytest.fixture(autouse=True)
def forgotten(request):
    yield
    if "lvlm" in request.fixturenames:
        kept = request.getfixturevalue("lvlm").graphs
        kept.kept.clear()
        kept.usable, kept.kernel = True, None


def plainly(query, prefix, suffix, own, scaling):
    """The definition, in float64: (N, W, K, D)."""
    n, heads, width, dim = query.shape
    per_group = heads // prefix.keys.shape[0]
    out = torch.empty(n, width, heads, dim, dtype=torch.float64)
    for row, place, head in np.ndindex(n, width, heads):
        group = head // per_group
        parts = [(prefix.keys[group], prefix.values[group], int(prefix.used))]
        if suffix is not None:
            prompt = row * len(suffix.keys) // n
            parts.append((suffix.keys[prompt, group], suffix.values[prompt, group], int(suffix.used[prompt])))
        parts.append((own.keys[row, group], own.values[row, group], int(own.used[row, place]) + 1))
        keys = torch.cat([keys[:used] for keys, _, used in parts]).double()
        values = torch.cat([values[:used] for _, values, used in parts]).double()
        out[row, place, head] = (keys @ query[row, head, place].double() * scaling).softmax(0) @ values
    return out


def filled(kernels, dtype, used, *shape):
    """Random keys and values; slots that are not in use are NaN, which must not matter."""
    made = kernels.KeysAndValues(*(torch.randn(shape).to(dtype) for _ in range(2)), used)
    ends = used.amax(-1) + 1 if used.dim() == 2 else used
    for store in (made.keys, made.values):
        for part, end in zip(store if len(shape) == 4 else [store], ends.tolist(), strict=True):
            part[:, end:] = torch.nan
    return made


def compared(kernels, dtype, prompts, each, heads, groups, width, dim, prefix, suffix, starts):
    n = prompts * each
    query = torch.randn(n, width, heads, dim).to(dtype).transpose(1, 2)  # as the models give it
    shared = filled(kernels, dtype, torch.tensor([prefix[0]]), groups, prefix[1], dim)
    apart = filled(kernels, dtype, torch.tensor(suffix), prompts, groups, 16, dim) if suffix else None
    seen = torch.tensor(starts)[:, None] + torch.arange(width)
    own = filled(kernels, dtype, seen, n, groups, 64, dim)
    made = kernels.decode_attention(query, shared, apart, own, dim**-0.5)
    assert made.dtype == dtype
    expected = plainly(query, shared, apart, own, dim**-0.5)
    torch.testing.assert_close(made.double(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    ("prompts", "each", "heads", "groups", "width", "dim", "prefix", "suffix", "starts"),
    [
        (1, 2, 4, 2, 1, 24, (70, 256), [], [0, 40]),  # two of two splits, the second one in part
        (1, 1, 7, 1, 4, 128, (129, 256), [], [3]),  # a group that is not a power of two; one token in the last split
        (2, 1, 3, 3, 1, 64, (5, 256), [0, 16], [1, 63]),  # every head a group; no suffix, a full one
        (1, 2, 2, 1, 1, 80, (0, 0), [], [0, 7]),  # no prefix
        (1, 1, 20, 1, 4, 16, (256, 256), [], [9]),  # more rows than a program has
        (1, 1, 10, 1, 4, 128, (16, 256), [], [9]),  # and with fewer of them, of many channels of float32
    ],
)
def test_as_plain_attention(kernels, dtype, prompts, each, heads, groups, width, dim, prefix, suffix, starts):
    torch.manual_seed(0)
    compared(kernels, dtype, prompts, each, heads, groups, width, dim, prefix, suffix, starts)


@settings(max_examples=6)
@given(
    groups=st.integers(1, 2),
    per_group=st.integers(1, 3),
    width=st.sampled_from([1, 2]),
    dim=st.sampled_from([8, 24]),
    used=st.integers(0, 256),
    suffix=st.lists(st.integers(0, 16), min_size=2, max_size=2) | st.just([]),
    starts=st.lists(st.integers(0, 62), min_size=2, max_size=2),
)
def test_lengths_of_any_kind(kernels, groups, per_group, width, dim, used, suffix, starts):
    compared(
        kernels,
        torch.float32,
        *(len(suffix) or 1, 2 // (len(suffix) or 1), groups * per_group, groups, width, dim),
        *((used, 256), suffix, starts),
    )


def test_large_scores_stay_finite(kernels):
    """What a softmax without its largest score would make infinite, in another part for each head."""
    used = torch.tensor([130])
    parts = [filled(kernels, torch.float32, used, 1, 256, 16), None]
    parts.append(filled(kernels, torch.float32, torch.tensor([[3]]), 1, 1, 64, 16))
    query = torch.randn(1, 3, 1, 16)
    for head, store in enumerate((parts[0].keys[0, 2], parts[0].keys[0, 129], parts[2].keys[0, 0, 1])):
        store[:] = 300 * torch.sign(query[0, head, 0])
    made = kernels.decode_attention(query, *parts, 1.0)
    assert made.isfinite().all()
    torch.testing.assert_close(made.double(), plainly(query, *parts, 1.0), atol=1e-5, rtol=1e-5)


@pytest.mark.long
def test_they_compile_for_a_gpu(kernels, tmp_path):
    """The compiler needs no GPU. The matrix units are used for half precision, and a program with the most rows fits
    into the memory of a small GPU, 48 kB."""
    environ = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    environ.pop("TRITON_INTERPRET", None)
    command = [sys.executable, str(ROOT / "test" / "helpers" / "compiled_kernels.py")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = [line.split() for line in done.stdout.splitlines()]
    kinds = [("fp16", "128"), ("bf16", "128"), ("bf16", "256"), ("fp32", "64"), ("fp32", "128")]
    assert [tuple(line[:3]) for line in found] == [(*k, f"_{n}_kernel") for k in kinds for n in ("prefix", "own")]
    for kind, _, _, uses, shared in found:
        assert (uses == "True") is (kind != "fp32") and int(shared) <= 48 * 1024


def test_blocks_are_as_large_as_the_memory_allows(kernels):
    # Channels, keys and rows. Tensor cores multiply sides of 16 at least.
    assert kernels.block_sizes(128, 2) == (128, 32, 64)
    assert kernels.block_sizes(80, 4) == (128, 16, 32)
    assert kernels.block_sizes(256, 4) == (256, 16, 16)
    assert kernels.block_sizes(8, 2) == (16, 128, 64)


def test_recorded_steps_use_them(lvlm, picture, monkeypatch, kernels):
    if lvlm.family not in ("internvl", "qwen2_5_vl"):
        pytest.skip("one family of each kind of positions")
    state = prefill(lvlm, lvlm.prepare_many(picture, ["key", "a small dog"]))
    forced = [[70, 71], [80]]
    real, asked = kernels.decode_attention, []
    monkeypatch.setattr(kernels, "decode_attention", lambda *args: asked.append(1) or real(*args))

    def steps(lvlm, state, n, limit):
        return CudaGraphDecoder(static_decoder(lvlm, state, n, limit), state)

    monkeypatch.setattr(sampling, "make_decoder", steps)
    written = []
    for kernel in (False, True, False):
        lvlm.graphs.kernel = kernel
        asked.clear()
        written.append(
            generate(lvlm, state, TeacherForcing(forced, lvlm.eos_ids[0]), 1, 3, token_statistics=True, ahead=0)
        )
        assert bool(asked) is kernel and len(lvlm.graphs.kept) == 1
    for plain, ours in zip(written[0], written[1], strict=True):
        assert ours.response_ids == plain.response_ids
        np.testing.assert_allclose(ours.token_logprob[0], plain.token_logprob[0], atol=1e-4)
        found = [Candidate(Box(0, 0, 1, 1), "", 0, 0, (0, 1, 1, 1))]
        prompt = plain.state.prompts[plain.prompt]
        maps = [capture(lvlm, prompt, s, found, AttentionNeeds(maps=True)).maps for s in (plain, ours)]
        np.testing.assert_allclose(*maps, atol=1e-6)


def test_without_triton_and_without_a_gpu_they_are_not_used(lvlm, monkeypatch):
    assert attention_kernel(lvlm) is None  # on a CPU, whether there is Triton or not
    lvlm.graphs.kernel = False
    assert attention_kernel(lvlm) is None
    lvlm.graphs.kernel = True
    monkeypatch.setitem(sys.modules, NAME, None)
    with pytest.raises(ImportError):
        attention_kernel(lvlm)


@pytest.mark.parametrize("error", ["ImportError('libtriton.so: undefined symbol')", "AttributeError('no JITFunction')"])
def test_a_triton_that_cannot_be_imported_is_done_without(tmp_path, monkeypatch, caplog, error):
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "__init__.py").write_text(f"raise {error}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [NAME, *(name for name in sys.modules if name.partition(".")[0] == "triton")]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    held = SimpleNamespace(dtype=torch.float16)
    of_gpu = SimpleNamespace(graphs=DecodeGraphs(), device=torch.device("cuda"), hf_model=held)
    assert attention_kernel(of_gpu) is None and attention_kernel(of_gpu) is None
    (said,) = [r.message for r in caplog.records]  # once
    assert said.startswith("Triton cannot be imported, decode steps do without its kernels: ")
    assert said.endswith(error.split("'")[1]) and of_gpu.graphs.kernel is False
    of_gpu.graphs.kernel = True  # asked for
    with pytest.raises(ImportError, match=error.split("'")[1]):
        attention_kernel(of_gpu)


def test_a_kept_decoder_stays_when_the_kernels_are_refused(lvlm, picture, monkeypatch):
    state = prefill(lvlm, [lvlm.prepare(picture, "key")])
    with torch.inference_mode():
        decoder = static_decoder(lvlm, state, 2, 10)
        monkeypatch.setitem(sys.modules, NAME, None)
        lvlm.graphs.kernel = True
        with pytest.raises(ImportError):
            static_decoder(lvlm, state, 2, 10)
        lvlm.graphs.kernel = None
        assert static_decoder(lvlm, state, 2, 10) is decoder


def test_kernels_that_do_not_run_are_done_without(lvlm, picture, monkeypatch, caplog):
    monkeypatch.setattr(graphs, "attention_kernel", lambda lvlm: "kernels" if lvlm.graphs.kernel is None else None)
    real = StaticDecoder.__init__

    def made(self, lvlm, state, capacity, *args, kernel=None):
        if kernel:
            raise OSError("no C compiler")  # Triton compiles a program that launches a kernel
        real(self, lvlm, state, capacity, *args)

    monkeypatch.setattr(StaticDecoder, "__init__", made)
    state = prefill(lvlm, [lvlm.prepare(picture, "key")])
    with torch.inference_mode(), caplog.at_level(logging.WARNING):
        decoder = static_decoder(lvlm, state, 2, 10)
        assert decoder.rows.kernel is None and static_decoder(lvlm, state, 2, 10) is decoder
    assert [r.message for r in caplog.records] == [
        "the attention kernels do not run here, decode steps do without them: no C compiler"
    ]
    assert lvlm.graphs.usable


def test_a_gpu_without_memory_is_not_mistaken_for_that(lvlm, picture, monkeypatch):
    monkeypatch.setattr(graphs, "attention_kernel", lambda lvlm: "kernels")

    def fail(self, *_, **__):
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    monkeypatch.setattr(StaticDecoder, "__init__", fail)
    state = prefill(lvlm, [lvlm.prepare(picture, "key")])
    with pytest.raises(torch.OutOfMemoryError):
        static_decoder(lvlm, state, 2, 10)
    assert lvlm.graphs.usable and lvlm.graphs.kernel is None

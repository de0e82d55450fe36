"""Small runs of each benchmark: they end, print what they promise, and write it down. Nothing is timed here."""

import json
import mmap
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from recorded_answers import real_tokenizer
from typer.testing import CliRunner

from acs_core.bench import cli, console, loading, startup
from acs_core.bench.forwards import FORMS, PieceTokenizer, forced_text
from acs_core.bench.page_cache import cached_mb, forget
from acs_core.bench.subject import map_shape, random_lvlm, random_prompts, shapes, tokens_of_frame
from acs_core.errors import AcsError, BenchError
from acs_core.generation.cuda_graph import static_decoder
from acs_core.generation.decoding import CudaGraphDecoder, EagerDecoder

SAMPLE = ["--image", str(Path(__file__).parents[3] / "docs" / "sample.png"), "--phrase", "key"]
SMALL = ["--image-tokens", "16", "--new-tokens", "10"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs acs-bench and gives what it printed, and what it wrote."""
    monkeypatch.setattr(console.out, "width", 200)

    def call(*arguments):
        file = tmp_path / "out.json"
        result = CliRunner().invoke(cli.app, [*arguments, "--json", str(file)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output, json.loads(file.read_text())

    return call


def test_five_ways_side_by_side(run):
    printed, found = run(*SMALL, "--samples", "3")
    assert [row["way"] for row in found["rows"]] == list("abcde")
    assert all(row["seconds"] > 0 for row in found["rows"])
    assert set(found["ratios"]) >= {"time a / e", "time e / b", "time d / e", "attention and selection / e"}
    assert found["map_gap"] < 1e-6
    assert set(found["stages_ms"]) == {"reading", "sampling", "attention", "selection"}
    assert "ours, ACS-Learned, all maps" in printed and "time a / e" in printed
    assert found["machine"]["threads"] == 1 and found["machine"]["date"]


def test_a_real_model_by_name(run):
    _, found = run("--shape", "tiny-qwen2.5-vl", "--ways", "ae", "--samples", "2", "--new-tokens", "12")
    assert [row["way"] for row in found["rows"]] == ["a", "e"]
    assert found["map_gap"] < 1e-4


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen3_vl", "internvl-tiles"])
def test_maps_equal_those_of_generate_with_output_attentions(run, model_folders, kind):
    printed, found = run("--shape", str(model_folders[kind]), "--ways", "ade", "--samples", "2", "--new-tokens", "12")
    assert found["map_gap"] < 1e-5
    assert "largest difference between the maps of (a) and (e)" in printed


def test_phrases_together_and_apart(run):
    printed, found = run(
        "phrases", "--shape", "tiny-internvl", "--new-tokens", "10", "--phrases", "3", "--samples", "2"
    )
    assert (found["phrases"], found["samples"]) == (3, 2)
    assert found["ratio"] == pytest.approx(found["together_s"] / found["apart_s"])
    assert "of 6 responses are the same both ways" in printed


def test_limits_of_the_hardware(run):
    printed, found = run("limits", "--shape", "tiny-internvl", "--samples", "2", "--new-tokens", "20", "--repeats", "1")
    assert found["N samples / one"] == pytest.approx(found["many_s"] / found["one_s"])
    assert found["step / floor"] == pytest.approx(found["step_ms"] / found["floor_ms"])
    assert 0 < found["looking_share"] < 1 and found["bandwidth_gb_s"] > 0
    assert "reading the weights" in printed and "matrix products" in printed
    assert found["step / linear layers"] == pytest.approx(found["step_ms"] / found["linear_ms"])


@pytest.mark.parametrize(
    ("shape", "frame", "tokens"),
    [("7b", (640, 480), 23 * 17), ("7b", (1920, 1080), 69 * 39), ("8b", (640, 480), 13 * 256), ("8b", (448, 448), 256)],
)
def test_tokens_of_a_frame(shape, frame, tokens):
    assert tokens_of_frame(shape, *frame) == tokens


def test_the_selector_by_itself(run, monkeypatch):
    monkeypatch.setattr("acs_core.bench.limits.SELECTOR_SHAPES", ["small"])
    monkeypatch.setattr("acs_core.bench.limits.map_shape", lambda name: (2, 2, 8, 8))
    _, found = run("selector", "--candidates", "4", "--repeats", "1")
    (row,) = found["rows"]
    assert row["candidate_ms"] == pytest.approx(row["case_ms"] / 4)
    assert row["paper_over_ours"] == pytest.approx(150 / row["case_ms"])


def test_loading_in_fresh_processes(run, monkeypatch):
    dropped = []
    monkeypatch.setattr("acs_core.bench.loading.forget", lambda files: dropped.append({f.name for f in files}))
    started = loading._start("tiny-internvl", "cpu")
    monkeypatch.setattr(loading, "_start", lambda *_: dict(started))  # one process is enough here
    _, found = run("load", "--model", "tiny-internvl", "--device", "cpu")
    assert [row["cache"] for row in found["rows"]] == ["cold", "model cold", "warm"]
    assert all(row["load_s"] > 0 and row["weights_mb"] > 5 for row in found["rows"])
    model, none, everything = dropped
    assert "model.safetensors" in model and not none and everything > model
    assert {"grounder.py", "modeling_utils.py", "libtorch_cpu.so"} <= everything
    assert (
        found["rows"][0]["still_cached_mb"] > found["rows"][1]["still_cached_mb"] > found["rows"][2]["still_cached_mb"]
    )


def test_files_in_the_page_cache(tmp_path):
    file = tmp_path / "weights.bin"
    file.write_bytes(b"x" * 2**20)
    os.sync()
    assert cached_mb([file, tmp_path / "missing"]) == pytest.approx(1.0)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[0] == ord("x")
        forget([file])
        assert cached_mb([file]) > 0  # in use
    forget([file, tmp_path / "missing"])
    assert cached_mb([file]) == 0.0 or _lives_in_memory(file)


def _lives_in_memory(file):
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    return max((place, kind) for place, kind in mounts if file.is_relative_to(place))[1] in ("tmpfs", "ramfs")


def test_answers_beside_a_busy_neighbour(run, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    printed, found = run("busy", "--answers", "1")
    assert [(row["threads"], row["neighbours"]) for row in found["rows"]] == [(1, 0), (1, 1)]
    assert all(0 < row["median_ms"] <= row["most_ms"] for row in found["rows"])
    assert "neighbours" in printed


def test_a_sweep_is_drawn(run, tmp_path, monkeypatch):
    import acs_core.bench.sweep as module

    monkeypatch.setattr(module, "USUAL_SAMPLES", 2)
    monkeypatch.setattr(module, "PHRASES", (1, 2))
    plot = tmp_path / "plot.png"
    small = [
        "--shape",
        "tiny-internvl",
        "--new-tokens",
        "8",
        "--ways",
        "ce",
        "--samples",
        "1,2",
        "--image-tokens",
        "16",
    ]
    _, found = run("sweep", "--plot", str(plot), *small)
    assert plot.read_bytes().startswith(b"\x89PNG")
    axes = {(p["axis"], p["x"], p["way"]) for p in found["points"]}
    assert {("samples", 2, "e"), ("image tokens", 16, "c"), ("phrases", 2, "together")} <= axes


def test_quantised_weights_beside_the_others(run):
    pytest.importorskip("bitsandbytes")
    _, found = run("quantization", *SAMPLE, "--samples", "3")
    none, eight, four = found["rows"]
    assert [row["quantization"] for row in (none, eight, four)] == ["none", "8bit", "4bit"]
    assert none["map_correlation"] == pytest.approx(1.0) and none["entropy_gap"] == 0.0
    assert 1.0 > eight["map_correlation"] > four["map_correlation"] > 0.5
    assert none["weights_mb"] > eight["weights_mb"] > four["weights_mb"]


def test_a_device_beside_the_cpu(run):
    printed, found = run("check-device", *SAMPLE, "--phrase", "cup", "--samples", "3", "--device", "cpu")
    same, half = found["rows"]
    assert (same["dtype"], half["dtype"]) == ("float32", "bfloat16")
    assert (same["phrases"], same["responses"]) == (2, 6)
    assert same["greedy_alike"] == 2 and same["map_gap"] == 0.0
    assert 0.0 < half["map_gap"] < 0.5  # it is another number type that was looked at
    assert same["responses_alike"] is same["recorded_ms"] is None and "none recorded" in printed


@pytest.mark.parametrize(("changed", "alike"), [(False, 3), (True, 0)])
def test_recorded_steps_beside_growing_ones(run, monkeypatch, changed, alike):
    """Steps on fixed buffers run without a GPU too, only not recorded."""
    asked = []  # the first model is the one to compare with

    def steps(lvlm, state, n, limit):
        asked.append(lvlm)
        decoder = static_decoder(lvlm, state, n, limit) if lvlm is not asked[0] else None
        if decoder is None:
            return EagerDecoder(lvlm, state, n)
        if changed:
            monkeypatch.setattr(decoder, "advance", lambda *_: torch.zeros(n, 16, lvlm.tokenizer.vocab_size))
        return CudaGraphDecoder(decoder, state)

    monkeypatch.setattr("acs_core.generation.generate.make_decoder", steps)
    _, found = run("check-device", *SAMPLE, "--samples", "3", "--device", "cpu", "--dtype", "float32")
    (row,) = found["rows"]
    assert (row["responses_alike"], row["responses"]) == (alike, 3)
    assert row["recorded_ms"] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--ways", "xyz"], 2, "abcde"),
        (["--shape", "small", "--dtype", "int3"], 2, "float32"),
        (["--frame", "wide"], 2, "640x480"),
        (["sweep", "--plot", "new.png", "--samples", "1,many"], 2, "1,10"),
        (["sweep", "--plot", "new.png", "--image-tokens", "0"], 2, "16384"),
        (["check-device", "--phrase", "key"], 2, "--image"),
    ],
)
def test_wrong_usage_is_explained(arguments, code, message):
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == code and message in result.output


def test_failures_are_one_line(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["acs-bench", "--shape", "/no/such/model"])
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    assert "acs-bench: /no/such/model: no such model folder" in capsys.readouterr().err


def test_shapes_are_those_of_the_models():
    for name, layers, heads, hidden in (("7b", 28, 28, 3584), ("8b", 36, 32, 4096)):
        text = shapes()[name][1].config().text_config
        assert (text.num_hidden_layers, text.num_attention_heads, text.hidden_size) == (layers, heads, hidden)
    assert (map_shape("small"), map_shape("7b"), map_shape("8b")) == (
        (12, 8, 24, 24),
        (28, 28, 24, 24),
        (36, 32, 16, 16),
    )
    small = random_lvlm("small", torch.device("cpu"), torch.float32)
    assert (small.num_layers, small.num_heads) == (12, 8)
    (prompt,) = random_prompts(small, 576)
    assert prompt.map_slice[1] - prompt.map_slice[0] == 576 and prompt.grid == (24, 24)
    with pytest.raises(AcsError, match="no shape 'big'"):
        random_lvlm("big", torch.device("cpu"), torch.float32)


def test_forwards_with_and_without_drafts(run):
    printed, found = run("forwards", "--samples", "4")
    assert [row["answers"] for row in found["rows"]] == ["forced, in a code block", "forced, indented"]
    assert all(row["same"] and row["plain"] >= 2.5 * row["drafted"] > 0 for row in found["rows"])
    assert "ratio" in printed
    _, found = run("forwards", "--model", "tiny-internvl", *SAMPLE, "--calls", "2")
    first, later = found["rows"]
    assert first["same"] and first["plain"] >= 1.5 * first["drafted"] >= 1.5 * later["drafted"]
    assert CliRunner().invoke(cli.app, ["forwards", "--model", "tiny-internvl"]).exit_code == 2


def test_startup_measures_every_command(run, monkeypatch):
    started = []
    monkeypatch.setattr(startup, "_run", lambda command: started.append(command[-1]) or 1.0 / len(started))
    _, found = run("startup", "--repeats", "2")
    what = {row["what"] for row in found["rows"]}
    assert what >= {"acs-ground --help", "acs-train --help", "grounding_node --help", "load tiny-internvl, lightly"}
    assert len(started) == 2 * len(what) and found["rows"][-1]["cpu_s"] == 1.0 / len(started)
    monkeypatch.undo()
    assert startup._run([sys.executable, "-c", "sum(range(10**6))"]) > 0
    with pytest.raises(BenchError, match=r"exit code 1: .*nope"):
        startup._run([sys.executable, "-c", "raise SystemExit('nope')"])


def test_the_forced_tokens_are_those_of_the_vocabulary():
    forced, real = PieceTokenizer(), real_tokenizer("qwen3_vl")
    for form, pieces in FORMS.items():
        text = forced_text(form, "cup", np.random.default_rng(0))
        mine = [forced.decode([i]) for i in forced(text)["input_ids"]]
        theirs = [real.decode([i]) for i in real(text, add_special_tokens=False)["input_ids"]]
        at = mine.index("cup")  # the part of the vocabulary that the tests have may split it further
        after = len(mine) - at - 1
        assert mine[:at] == theirs[:at] and mine[-after:] == theirs[-after:]
        assert "".join(mine) == text and [p for p in mine if p in "[]`"] == [p for p in pieces if p in "[]`"]

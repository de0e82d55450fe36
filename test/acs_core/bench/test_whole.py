"""Whole calls beside those of other engines: equal work, equal logits, and tables that say what is missing. Nothing is
timed here."""

import json
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from acs_core.bench import cli, peers, whole_commands
from acs_core.bench import whole as module
from acs_core.bench.goals import CPU_GOALS, Goal, with_values
from acs_core.bench.methods import DrawnThenForced, ours, plain
from acs_core.bench.peers import NOT_INSTALLED, continuous_batching, ctranslate2_generator, ours_on_text, prefilled_once
from acs_core.bench.subject import load_subject, random_lvlm, random_prompts, shapes
from acs_core.bench.whole import WAYS, compare_whole
from acs_core.bench.whole_call import PHRASE, WholeCall, text_alone, usual_image_processor
from acs_core.errors import BenchError
from acs_core.generation.speculation import AnswerDrafts

FRAME, TOKENS = (112, 84), 12


@pytest.fixture(scope="module")
def subject():
    """A random model like "small" with few layers."""
    made = load_subject("small", 16, 1, "cpu", "float32")
    config = made.lvlm.hf_model.config
    config.text_config.num_hidden_layers, config.text_config.layer_types = 2, config.text_config.layer_types[:2]
    config.vision_config.depth = 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = type(made.lvlm.hf_model)(config).eval()
    model.set_attn_implementation("sdpa")
    lvlm = replace(made.lvlm, hf_model=model)
    return replace(made, lvlm=lvlm, prompts=random_prompts(lvlm, 16))


@pytest.fixture(scope="module")
def call(subject):
    return WholeCall.about(subject.lvlm, FRAME)


@pytest.fixture
def work(call):
    return call.work(3, 0)


def test_the_prompt_holds_the_preprocessed_image(subject, call):
    prompt = call.prepare()
    assert int((prompt.input_ids == subject.lvlm.hf_model.config.image_token_id).sum()) == TOKENS
    assert prompt.grid == (3, 4) and prompt.phrase == PHRASE
    assert prompt.vision["pixel_values"].shape[0] == 4 * TOKENS
    assert prompt.vision["pixel_values"].std() > 0.5  # noise, normalised


@pytest.mark.parametrize(("shape", "frame"), [("7b", (640, 480)), ("qwen3-vl-2b", (640, 480)), ("8b", (900, 448))])
def test_the_image_processor_makes_as_many_tokens_as_the_family_counts(shape, frame):
    family, made = shapes()[shape]
    config = made.config()

    class Model:
        adapter, hf_model = family, type("Stub", (), {"config": config})

    image = np.zeros((frame[1], frame[0], 3), np.uint8)
    inputs = usual_image_processor(Model)(images=[image], return_tensors="pt", input_data_format="channels_last")
    if "image_grid_thw" in inputs:
        counted = int(inputs["image_grid_thw"].prod()) // config.vision_config.spatial_merge_size**2
    else:
        counted = len(inputs["pixel_values"]) * config.image_seq_length
    assert counted == family.image_tokens(config, *frame)


def test_answers_differ_between_rows_and_calls_and_have_one_length(call):
    first, second = call.answers(4, 0), call.answers(4, 1)
    assert len({*first, *second}) == 8 and len({len(ids) for ids in (*first, *second)}) == 1
    assert first == call.answers(4, 0)
    text = call.tokenizer.decode(first[0])
    assert text.startswith("```json") and text.endswith(f'"label": "{PHRASE}"}}\n]\n```')


def test_drawing_changes_no_answer(subject, call, work):
    forced = DrawnThenForced.of(work)
    logits = torch.randn(3, 2000, generator=torch.Generator().manual_seed(0))
    places = torch.tensor([0, 1, 2])
    assert forced.pick(logits, places, places).tolist() == [work.responses[k][k] for k in range(3)]
    assert forced.drawn.pick(logits, places, places).tolist() != [work.responses[k][k] for k in range(3)]
    learned = subject.learned()
    bare = ours(work, learned)
    drafted = ours(work, learned, AnswerDrafts(call.tokenizer, subject.lvlm.eos_ids), drawing=True)
    assert np.abs(bare.record.maps - drafted.record.maps).max() < 1e-6


def test_generate_after_one_prefill_has_the_logits_of_generate(work):
    whole, once = (method(work, output_logits=True) for method in (plain, prefilled_once))
    assert torch.equal(whole.sequences, once.sequences) and len(whole.logits) == work.new_tokens
    assert max((a - b).abs().max() for a, b in zip(whole.logits, once.logits, strict=True)) < 1e-4
    moved = replace(
        work, prompt=replace(work.prompt, vision={**work.prompt.vision, "pixel_values": torch.zeros(48, 1176)})
    )
    other = prefilled_once(moved, output_logits=True)
    assert (whole.logits[0] - other.logits[0]).abs().max() > 1e-3  # the image is seen


def test_the_language_model_alone_gets_a_prompt_of_the_same_length(work):
    text = text_alone(work)
    assert text.prompt.length == work.prompt.length and not text.prompt.vision
    assert not set(text.prompt.input_ids[0].tolist()) & {4, 5, 6}
    (samples,) = ours_on_text(text)
    assert samples.response_ids == work.responses


def test_continuous_batching_runs_on_a_cpu(work):
    text = text_alone(work)
    with continuous_batching(text) as sample:
        first, second = sample(), sample()
    for found in (first, second):
        assert [len(one.generated_tokens) for one in found.values()] == [work.new_tokens] * 3
    assert next(iter(first.values())).prompt_ids != next(iter(second.values())).prompt_ids
    assert work.lvlm.hf_model.config._attn_implementation == "sdpa"


def test_a_release_without_continuous_batching(work, monkeypatch):
    monkeypatch.setattr(peers.transformers, "ContinuousBatchingConfig", None)
    with pytest.raises(BenchError, match="has no continuous batching"), continuous_batching(work):
        pass


def test_ctranslate2_is_not_needed(subject, monkeypatch):
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(BenchError, match=NOT_INSTALLED), ctranslate2_generator(subject.lvlm, 1):
        pass


@pytest.mark.parametrize("shape", ["small", "8b"])
def test_ctranslate2_writes_what_the_model_writes(subject, shape):
    pytest.importorskip("ctranslate2")
    lvlm = subject.lvlm
    if shape == "8b":
        family, made = shapes()["8b"]
        config = made.config()
        text, vision = config.text_config, config.vision_config
        text.vocab_size, text.hidden_size, text.intermediate_size, text.head_dim = 200, 64, 96, 32
        text.num_hidden_layers, text.num_attention_heads, text.num_key_value_heads = 2, 4, 2
        text.layer_types = text.layer_types[:2]
        vision.hidden_size, vision.intermediate_size, vision.num_attention_heads, vision.num_hidden_layers = (
            16,
            16,
            2,
            1,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            lvlm = replace(lvlm, adapter=family, hf_model=made.model_class(config).eval())
        lvlm.hf_model.set_attn_implementation("sdpa")
    text = text_alone(WholeCall.about(lvlm, (448, 448) if shape == "8b" else FRAME).work(1, 0))
    logits = plain(text, output_logits=True).logits[0][0]
    with ctranslate2_generator(lvlm, 1) as sample:
        # With one token to choose from, drawing is greedy.
        best = sample(replace(text, responses=((0,),)), top_k=1)
    assert best[0][0] == int(logits.argmax())


def test_an_engine_of_others_that_fails_is_a_row(subject, monkeypatch):
    @contextmanager
    def broken(*_):
        raise RuntimeError("no kernel for this device")
        yield

    monkeypatch.setattr(module, "continuous_batching", broken)
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    report = compare_whole(subject, FRAME, 2, "cigh")
    notes = {(row.way, row.samples): row.note for row in report.rows}
    assert notes["g", 2] == "does not run here: RuntimeError: no kernel for this device"
    assert notes["h", 2] == notes["h", 1] == NOT_INSTALLED
    assert notes["c", 2] == notes["i", 2] == notes["i", 1] == ""
    assert [goal.met for goal in report.goals] == [None] * len(CPU_GOALS)


def test_ways_without_time_or_memory_are_named(subject, monkeypatch):
    monkeypatch.setattr(module, "_free_bytes", lambda device: 1000)
    go_on = iter([True, False])
    report = compare_whole(subject, FRAME, 2, "ab", may_go_on=lambda: next(go_on))
    first, second = report.rows
    assert "GiB for attention matrices" in first.note and second.note == module.NO_TIME
    assert first.seconds is second.seconds is None and report.ratios == {}


def test_drafts_know_no_answer_before_it_is_written(subject, monkeypatch):
    """Ways (d) and (e) take the same forwards: neither profits from the answers of the other."""
    taken = []

    def counted(work, selector, drafts=None, drawing=False):
        steps = []
        hook = subject.lvlm.text_model.register_forward_hook(lambda *_: steps.append(None))
        try:
            return ours(work, selector, drafts, drawing)
        finally:
            hook.remove()
            taken.append((work.prompt.phrase, work.responses, len(steps)))

    monkeypatch.setattr(module, "ours", counted)
    compare_whole(subject, FRAME, 3, "dej", repeats=2)
    assert len(taken) == 3 * 4
    d, e, plainly = taken[2:4], taken[6:8], taken[10:12]
    assert d == e and d[0][1] == plainly[0][1] != d[1][1]
    assert {phrase for phrase, _, _ in (taken[0], taken[4], taken[8])} == {"cup"}
    assert all(2 * drafted < steps for (_, _, drafted), (_, _, steps) in zip(d, plainly, strict=True))


def test_our_own_faults_are_not_hidden(subject, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("a fault")

    monkeypatch.setattr(module, "ours", broken)
    with pytest.raises(RuntimeError, match="a fault"):
        compare_whole(subject, FRAME, 2, "e")


@pytest.mark.parametrize(("value", "at_least", "met"), [(14.0, True, True), (13.9, True, False), (14.1, False, False)])
def test_a_goal_is_met_at_its_bound(value, at_least, met):
    (goal,) = with_values([Goal("time a / e", 14.0, at_least)], {"time a / e": value})
    assert goal.met is met and goal.describe()[-1] == ("met" if met else "not met")
    assert Goal("x", 1.0, True, None, "7b").describe() == ("x, 7b", "at least 1", "-", "not measured")


def test_one_run_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setattr(whole_commands.out, "width", 200)
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    file = tmp_path / "whole.json"
    words = ["whole", "--shape", "tiny-internvl", "--frame", "64x64", "--samples", "2", "--ways", "abfdejh"]
    result = CliRunner().invoke(cli.app, [*words, "--json", str(file)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (run,) = json.loads(file.read_text())["runs"]  # one thread and all threads are the same here
    assert [row["way"] for row in run["rows"]] == [*"abfdejh", "e", "h"]
    assert set(run["ratios"]) >= {"time a / e", "time e / b", "time f / e", "time j / e"}
    assert set(run["stages_ms"]) == {"preparing", "reading", "sampling", "attention", "selection"}
    goals = {goal["ratio"]: goal["met"] for goal in run["goals"]}
    assert goals["time a / e"] == (run["ratios"]["time a / e"] >= 14) and goals["time e / h, N = 1"] is None
    assert NOT_INSTALLED in result.output and "goal time e / b at most 0.2" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--ways", "xyz"], "abcdejf"), (["--threads", "1,few"], "1,all"), (["--frame", "big"], "640x480")],
)
def test_wrong_usage_is_explained(words, message):
    result = CliRunner().invoke(cli.app, ["whole", *words])
    assert result.exit_code == 2 and message in result.output


def test_the_letters_of_the_command_are_those_of_the_comparison():
    assert "".join(WAYS) == whole_commands.ALL_WAYS
    assert random_lvlm("small", torch.device("cpu"), torch.float32).num_layers == 12  # the fixture changed a copy

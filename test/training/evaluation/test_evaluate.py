"""The whole way with an embedded model: collections, runs, files; and a second run that asks nothing."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from acs_core.artifacts.registry import resolve_model
from acs_core.evaluation.records import EVEN_ATTENTION
from acs_core.evaluation.storage import load
from acs_core.lvlm import load_lvlm
from acs_core.selection.registry import selector_names
from training.cli import main
from training.collection import part
from training.data.coco import read_coco
from training.errors import DataError
from training.evaluation import evaluate as module
from training.evaluation import latency, second_look_runs
from training.evaluation.cache import CollectionCache
from training.evaluation.evaluate import EvaluateConfig, choose_groups, plan, scorers_for
from training.evaluation.unknown_phrases import KINDS
from training.world.synth import write_coco

pytestmark = pytest.mark.long

COUNTS = ["--small", "4", "--several", "2", "--large", "2", "--absent", "0", "--samples", "2", "--most", "3"]
TAUS = ["--temperature", "0.5", "--temperature", "1.0"]
# those that read files of the model
WITH_FILES = (
    "acs-free",
    "acs-learned",
    "acs-fusion",
    "acs-fusion-box",
    "acs-joint",
    "attention-in-box",
    "acs-learned-box",
)
CALIBRATED = (*WITH_FILES, "consensus")
# the embedded models state no confidence in words
SAMPLING = [name for name in selector_names() if name not in ("greedy", "verbal-confidence")]
runner = CliRunner()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("world") / "test", "test", 25)


@pytest.fixture(scope="module")
def first(data, tmp_path_factory):
    """The arguments of a first run, its output and its folder."""
    folder = tmp_path_factory.mktemp("evaluate")
    arguments = ["evaluate", "--model", "tiny-internvl", "--data", str(data), "--work", str(folder / "work")]
    arguments += ["--device", "cpu", *COUNTS, *TAUS]
    done = runner.invoke(main.app, [*arguments, "--out", str(folder / "out"), "--json", str(folder / "tables.json")])
    assert done.exit_code == 0, done.output
    return arguments, done, folder


def settings(group):
    return {(r.method, r.temperature, r.samples) for r in group.runs}


def test_every_method_answers_every_question_at_every_temperature(first):
    _, done, folder = first
    found = load(folder / "out" / "evaluation.json.gz")
    small, several, large = found.groups
    assert found.facts["check_labels"] == "yes"
    assert [g.name for g in found.groups] == ["small", "several small", "large"]
    assert [len(g.questions) for g in found.groups] == [4, 2, 2]
    bounds = ["oracle", "random"]
    curve = {(m, 1.0, n) for m in SAMPLING + bounds for n in (1, 2, 3)}
    assert settings(small) == {("greedy", None, 1)} | {(m, 0.5, 2) for m in SAMPLING + bounds} | curve
    assert settings(large) == {("greedy", None, 1)} | {(m, t, 2) for m in SAMPLING + bounds for t in (0.5, 1.0)}
    listed = {(m, None, 1) for m in ("greedy", "greedy + NMS 0.5", "greedy + NMS 0.8")}
    assert settings(several) == listed | {(m, t, 2) for m in SAMPLING for t in (0.5, 1.0)}
    assert all(len(q.truth) == 1 for q in small.questions) and all(len(q.truth) > 1 for q in several.questions)
    judged = {(r.group, r.temperature) for r in found.regressions}
    assert {("small", 0.5), ("small", 1.0)} <= judged <= {(g.name, t) for g in found.groups for t in (0.5, 1.0)}
    assert found.facts["model"].endswith("tiny-internvl") and found.facts["calibrated"] == ", ".join(CALIBRATED)
    scored = {r.method for r in small.runs for a in r.answers if a.scores}
    assert scored == set(CALIBRATED)
    assert "Accuracy: small" in done.output and "Precision and recall: several small" in done.output


def test_what_was_asked_is_written_down(first, data):
    folder = first[2]
    chosen = json.loads((folder / "out" / "questions.json").read_text())
    assert {name: len(keys) for name, keys in chosen.items()} == {"small": 4, "several small": 2, "large": 2}
    images = {image.id: image for image in read_coco(data).images}
    image, name = chosen["small"][0].split(":")
    assert name in {o.name for o in images[int(image)].objects}
    names = {t["name"] for t in json.loads((folder / "tables.json").read_text())["tables"]}
    assert "small-accuracy" in names and (folder / "out" / "small-accuracy.csv").exists()


def test_a_second_run_asks_nothing_and_says_the_same(first, monkeypatch):
    arguments, _, folder = first

    def refuse(*_):
        raise AssertionError("asked again")

    monkeypatch.setattr(part, "sample_each", refuse)
    monkeypatch.setattr(module, "sampled_runs", refuse)
    monkeypatch.setattr(module, "greedy_runs", refuse)
    done = runner.invoke(main.app, [*arguments, "--out", str(folder / "again")])
    assert done.exit_code == 0, done.output
    assert load(folder / "again" / "evaluation.json.gz").groups == load(folder / "out" / "evaluation.json.gz").groups


def test_fewer_samples_come_from_the_larger_collection(first, monkeypatch):
    arguments, _, folder = first
    monkeypatch.setattr(part, "sample_each", lambda *_: pytest.fail("asked again"))
    less = ["--temperature", "1.0", "--several", "0", "--large", "0"]
    rest = arguments[: arguments.index("--temperature")]
    done = runner.invoke(main.app, [*rest, *less, "--curve", "0.3", "--out", str(folder / "fewer")])
    assert done.exit_code == 0, done.output
    (fewer,), whole = load(folder / "fewer" / "evaluation.json.gz").groups, load(folder / "out" / "evaluation.json.gz")
    runs = {(r.method, r.temperature, r.samples): r for r in whole.groups[0].runs}
    assert (
        all(runs[r.method, r.temperature, r.samples].answers == r.answers for r in fewer.runs) and len(fewer.runs) > 9
    )


def test_damaged_runs_are_made_again(first):
    arguments, _, folder = first
    for file in (folder / "work" / "answers").iterdir():
        file.write_bytes(file.read_bytes()[:40])
    done = runner.invoke(main.app, [*arguments, "--out", str(folder / "mended")])
    assert done.exit_code == 0, done.output
    assert load(folder / "mended" / "evaluation.json.gz").groups == load(folder / "out" / "evaluation.json.gz").groups


def test_the_plan_names_the_collections_and_asks_nothing(first, tmp_path):
    arguments, _, folder = first
    done = runner.invoke(main.app, [*arguments, "--plan"])
    assert done.exit_code == 0 and done.output.count("complete: ") == 9 and "to be collected" not in done.output
    assert "small: 4 questions, 3 samples at tau 1, complete: " in done.output
    elsewhere = [*arguments, "--plan", "--work", str(tmp_path), "--collected", str(folder / "work" / "collections")]
    done = runner.invoke(main.app, elsewhere)
    assert done.output.count("complete: ") == 9 and str(tmp_path) not in done.output
    done = runner.invoke(main.app, [*arguments, "--plan", "--step", "consuming"])
    assert done.output.count("to be collected: ") == 9


def test_second_looks_add_a_run_for_small_objects_and_are_kept(first, monkeypatch):
    arguments, _, folder = first
    twice = [*arguments, "--second-look", "acs-fusion", "--second-look", "first-valid"]
    done = runner.invoke(main.app, [*twice, "--out", str(folder / "twice")])
    assert done.exit_code == 0, done.output
    assert "first-valid: no second look" in " ".join(done.output.split())
    small, *rest = load(folder / "twice" / "evaluation.json.gz").groups
    before, *others = load(folder / "out" / "evaluation.json.gz").groups
    added = [r for r in small.runs if r not in before.runs]
    assert {(r.method, r.temperature, r.samples) for r in added} == {
        (f"{name} + second look", t, 2) for name in ("acs-fusion", "consensus") for t in (0.5, 1.0)
    }
    assert rest == others and len(small.runs) == len(before.runs) + 4
    assert list((folder / "work" / "collections").glob("*second-look*"))
    monkeypatch.setattr(part, "sample_each", lambda *_: pytest.fail("asked again"))
    monkeypatch.setattr(second_look_runs, "joined_calls", lambda *_: pytest.fail("judged again"))
    done = runner.invoke(main.app, [*twice, "--out", str(folder / "twice again")])
    assert done.exit_code == 0, done.output
    assert load(folder / "twice again" / "evaluation.json.gz").groups[0] == small


def test_an_unknown_selector_for_second_looks_is_a_usage_error(first):
    done = runner.invoke(main.app, [*first[0], "--second-look", "acs-fancy"])
    assert done.exit_code == 2 and "unknown selector" in " ".join(done.output.split())


def test_latency_is_measured_where_it_is_asked_for(first, monkeypatch):
    arguments, _, folder = first
    monkeypatch.setattr(latency, "answer_ms", lambda grounder, pairs, sampling: [7.0] * len(pairs))
    done = runner.invoke(main.app, [*arguments, "--latency", "3", "--out", str(folder / "timed")])
    assert done.exit_code == 0, done.output
    small, *rest = load(folder / "timed" / "evaluation.json.gz").groups
    timed = {(r.method, r.temperature, r.samples) for r in small.runs if r.answers[0].latency_ms is not None}
    assert timed == {("greedy", None, 1)} | {(m, 0.5, 2) for m in SAMPLING}
    assert all([a.latency_ms for a in r.answers] == [7.0] * 3 + [None] for r in small.runs if r.answers[0].latency_ms)
    assert all(a.latency_ms is None for g in rest for r in g.runs for a in r.answers)


def test_pictures_that_cannot_be_read_are_left_out_of_all_runs(data, tmp_path):
    content = json.loads(data.read_text())
    pairs = choose_groups(read_coco(data), EvaluateConfig({"small": 4}))["small"]
    gone = next(i for i in content["images"] if i["id"] == pairs[1].image_id)
    gone["file_name"] = "no-such.png"
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(content))
    arguments = ["evaluate", "--model", "tiny-internvl", "--data", str(file), "--images", str(data.parent / "images")]
    arguments += ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    sizes = ["--small", "4", "--several", "0", "--large", "0", "--absent", "0", "--samples", "2"]
    sizes += ["--temperature", "0.5", "--most", "2"]
    done = runner.invoke(main.app, [*arguments, *sizes])
    assert done.exit_code == 0, done.output
    assert f"small: left out {pairs[1].key}: " in " ".join(done.output.split())
    found = load(tmp_path / "out" / "evaluation.json.gz")
    asked = [p.key for p in pairs if p.image_id != pairs[1].image_id]
    assert [q.key for q in found.groups[0].questions] == asked
    assert found.facts["questions left out"] == str(4 - len(asked))


def test_every_second_question_may_be_about_an_absent_object(data, tmp_path):
    arguments = ["evaluate", "--model", "tiny-qwen2.5-vl", "--data", str(data), "--work", str(tmp_path / "work")]
    arguments += ["--small", "3", "--several", "0", "--large", "0", "--absent", "9", "--samples", "2", "--most", "2"]
    arguments += ["--second-look", "acs-fusion-box"]
    done = runner.invoke(
        main.app, [*arguments, "--temperature", "0.5", "--device", "cpu", "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 0, done.output
    small, group = load(tmp_path / "out" / "evaluation.json.gz").groups
    assert group.name == "small or absent" and sorted(len(q.truth) for q in group.questions) == [0] * 4 + [1] * 4
    shown = {q.image for q in group.questions if q.truth}
    assert {q.image for q in group.questions if not q.truth} <= shown
    for of in (small, group):  # each has its own second looks
        looked = {r.method: r for r in of.runs if r.method.endswith("second look")}
        assert set(looked) == {f"{name} + second look" for name in ("acs-fusion-box", "consensus")}
        assert all(len(r.answers) == len(of.questions) for r in looked.values())
    assert any(a.scores for r in looked.values() for a in r.answers)
    tables = ((name, tmp_path / "out" / f"small-or-absent-{name}.csv") for name in ("detection", "calibration"))
    heads = {name: file.read_text().splitlines()[0] for name, file in tables}
    assert "false alarms" in heads["detection"]
    assert "AUROC of all" in heads["calibration"] and "error of all %" in heads["calibration"]


def test_attention_is_taken_out_and_nonsense_is_asked(data, tmp_path):
    arguments = ["evaluate", "--model", "tiny-internvl", "--data", str(data), "--work", str(tmp_path / "work")]
    arguments += ["--device", "cpu", "--small", "2", "--several", "0", "--large", "0", "--absent", "0"]
    arguments += ["--samples", "2", "--most", "2", "--temperature", "0.5", "--without-attention", "--nonsense", "2"]
    done = runner.invoke(main.app, [*arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    (group,) = load(tmp_path / "out" / "evaluation.json.gz").groups
    methods = {r.method for r in group.runs}
    even = {name.removesuffix(EVEN_ATTENTION) for name in methods if name.endswith(EVEN_ATTENTION)}
    assert even == methods & set(WITH_FILES) and "acs-joint" in even
    (table,) = [t for t in json.loads((tmp_path / "out" / "tables.json").read_text()) if t["name"] == "unknown-phrases"]
    rows = {(row["Method"], row["asked for"]): row for row in table["rows"]}
    assert {kind for _, kind in rows} == set(KINDS) and {method for method, _ in rows} <= set(CALIBRATED)
    assert all(row["questions"] == 2 and 0 <= row["median score"] <= 1 for row in rows.values())
    done = runner.invoke(main.app, [*arguments, "--plan"])
    assert "unknown phrases: 8 questions, 2 samples at tau 0.5, complete: " in done.output


@pytest.mark.parametrize("limit", [0, 1])
def test_fewer_than_two_questions_are_no_group_of_present_and_absent_objects(data, limit):
    chosen = choose_groups(read_coco(data), EvaluateConfig({"small": 1, "small or absent": limit}))
    assert list(chosen) == ["small"]


def test_groups_without_pairs_are_left_out(data):
    said = []
    content = read_coco(data)
    none = replace(content, images=())
    with pytest.raises(DataError, match="holds no pair of the wanted groups"):
        choose_groups(none, EvaluateConfig({"small": 5}), said.append)
    assert said and said[0].startswith("small: left out")
    few = choose_groups(content, EvaluateConfig({"small": 3, "medium": 0, "large": 2}), said.append)
    assert {name: len(pairs) for name, pairs in few.items()} == {"small": 3, "large": 2}


def test_selectors_without_files_are_named(data, tmp_path):
    lvlm = load_lvlm(resolve_model("tiny-internvl"), device="cpu")
    renamed = replace(lvlm, name="someone/else")
    said = []
    names = [j.selector.name for j in scorers_for(renamed, None, said.append)]
    assert names == [n for n in selector_names() if n not in WITH_FILES]
    assert [line.split(":")[0] for line in said] == [f"{n} is left out" for n in WITH_FILES]
    config = EvaluateConfig({"small": 2}, temperatures=(0.5,), curve=(1,), samples=2)
    wanted = plan(
        renamed, choose_groups(read_coco(data), config), config, CollectionCache(tmp_path), "test/instances.json", "w"
    )
    assert [w.title for w in wanted] == ["small, greedy", "small, tau 0.5"] and wanted[1].counts == (2,)

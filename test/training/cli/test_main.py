import json
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner

from acs_core.artifacts.registry import ASSETS
from acs_core.selection.registry import fuses_boxes
from training.cli import main
from training.tiny import train
from training.tiny.recipe import TrainConfig

runner = CliRunner()


def test_synth_writes_a_data_set(tmp_path):
    done = runner.invoke(main.app, ["synth", "--split", "val", "--images", "3", "--out", str(tmp_path)])
    assert done.exit_code == 0 and "instances.json" in done.output
    assert len(json.loads((tmp_path / "instances.json").read_text())["images"]) == 3


@pytest.mark.parametrize("arch", ["internvl", "qwen2_5_vl"])
def test_tiny_eval_prints_a_row_for_every_method(arch, tmp_path):
    table = tmp_path / "table.json"
    arguments = ["tiny-eval", "--arch", arch, "--cases", "4", "--work", str(tmp_path), "--json", str(table)]
    done = runner.invoke(main.app, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(table.read_text())
    rows = found["rows"]
    scored = [
        "acs-free",
        "acs-learned",
        "acs-fusion",
        "acs-fusion-box",
        "acs-joint",
        "attention-in-box",
        "acs-learned-box",
    ]
    tokens = ["token-entropy", "coordinate-logprob", "sequence-logprob", "mean-token-logprob"]
    votes = ["majority-vote", "majority-vote-median", "mean-box", "grid-vote", "consensus", "medoid", "largest-cluster"]
    baselines = ["greedy", "pass-at-1", "first-valid", "smallest", *tokens, *votes]
    by_name = {r["method"]: r for r in rows}
    assert [name for name in by_name if not name.endswith(", auto")] == [*baselines, *scored, "best of N"]
    assert [name for name in by_name if name.endswith(", auto")] == [
        f"{n}, auto" for n in (*tokens, *votes[-3:], *scored)
    ]
    assert {n for n, r in by_name.items() if r["calibration_error"] is not None} == {*scored, "consensus"}
    assert [by_name[n]["samples"] for n in ("greedy", "pass-at-1", "first-valid", "acs-free")] == [1.0, 1.0, 10.0, 10.0]
    assert all(4 <= r["samples"] <= 10 for n, r in by_name.items() if n.endswith(", auto"))
    chosen = [r for n, r in by_name.items() if n != "greedy" and not fuses_boxes(n.removesuffix(", auto"))]
    assert rows[-1]["accuracy"] >= max(r["accuracy"] for r in chosen)  # a fused box is none of the N
    for words in ("unparseable answers", "absent objects refused", "several objects", "on one CPU thread"):
        assert words in done.output
    assert found["answer_ms"] > 0 and 0 <= found["unparseable"] <= 100 and 0 <= found["refused"] <= 100


def test_a_folder_without_built_files_is_compared_by_the_selectors_that_need_none(tmp_path):
    shipped = ASSETS / "tiny-internvl"
    (tmp_path / "tiny-internvl").mkdir()
    for file in shipped.iterdir():
        if file.name not in ("heads.json", "joint.safetensors") and not file.name.startswith("calibration"):
            (tmp_path / "tiny-internvl" / file.name).symlink_to(file)
    table = tmp_path / "table.json"
    arguments = ["tiny-eval", "--model", str(tmp_path / "tiny-internvl"), "--cases", "2", "--work", str(tmp_path / "w")]
    done = runner.invoke(main.app, [*arguments, "--json", str(table)], terminal_width=300)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    for name, file in (("acs-free", "heads.json"), ("acs-fusion", "heads.json"), ("acs-joint", "joint.safetensors")):
        assert f"without {name}: " in said and f"has no {file}; acs-train build makes it" in said
    methods = {r["method"] for r in json.loads(table.read_text())["rows"]}
    assert {"greedy", "smallest", "acs-learned"} < methods and not methods & {"acs-free", "acs-fusion", "acs-joint"}


def test_tiny_eval_draws_answered_scenes(tmp_path):
    arguments = ["tiny-eval", "--cases", "3", "--work", str(tmp_path), "--pictures", str(tmp_path / "drawn")]
    done = runner.invoke(main.app, arguments)
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["synth", "--images", "3"], 2, "--out"),
        (["tiny", "--arch", "llava", "--out", "x"], 2, "internvl, qwen2_5_vl"),
        (["tiny", "--device", "gpu", "--out", "OUT"], 2, "use auto, cpu, cuda"),
        (["tiny", "--first-phase", "D", "--out", "OUT"], 2, "needs the weights of --base"),
        (["tiny", "--base", "qwen2.5-vl-7b", "--out", "OUT"], 2, "must be a folder or one of tiny-internvl"),
        (
            ["tiny", "--base", "tiny-internvl", "--first-phase", "E", "--steps", "E=0", "--out", "OUT"],
            2,
            "have no steps",
        ),
        (["tiny", "--base", "tiny-internvl", "--first-phase", "F", "--out", "OUT"], 2, "there is no phase 'F'"),
        (["tiny", "--steps", "D400", "--out", "OUT"], 2, "as in D=400"),
        (["tiny-eval", "--json", "no/such/folder/a.json"], 2, "does not exist"),
        (["tiny-eval", "--arch", "llava"], 2, "internvl, qwen2_5_vl"),
        (["tiny-eval", "--split", "train"], 2, "val, test or shifted"),
        (["synth", "--split", "dev", "--images", "3", "--out", "OUT"], 2, "train, val, test"),
        (["collect", "--model", "tiny-internvl", "--data", "none.json", "--out", "OUT"], 1, "cannot be read"),
        (
            ["collect", "--model", "tiny-internvl", "--data", "d", "--out", "OUT", "--size", "huge"],
            2,
            "'huge' is not one of",
        ),
        (["fit", "--store", "none", "--out", "OUT"], 1, "holds no collection"),
        (["analyze", "--store", "none", "--out", "OUT"], 1, "holds no collection"),
        (["calibrate", "--store", "none", "--out", "OUT"], 1, "holds no collection"),
        (["build", "--model", "tiny-internvl", "--out", "OUT"], 2, "name the data: --coco FOLDER"),
        (["build", "--model", "tiny-internvl", "--coco", "none", "--train", "a", "--out", "OUT"], 2, "leave --train"),
        (["build", "--model", "tiny-internvl", "--coco", "none", "--out", "OUT"], 1, "none does not exist"),
        (["evaluate", "--model", "tiny-internvl", "--data", "none.json"], 1, "cannot be read"),
        (["evaluate", "--model", "tiny-internvl"], 2, "--data"),
        (["evaluate", "--model", "tiny-internvl", "--data", "OUT"], 1, "holds no val side of a data set"),
        (["evaluate", "--model", "tiny-internvl", "--data", "d", "--json", "no/such/a.json"], 2, "does not exist"),
        (["evaluate", "--model", "tiny-internvl", "--data", "d", "--step", "later"], 2, "'later' is not one of"),
        (["evaluate", "--model", "tiny-internvl", "--data", "d", "--samples", "0"], 2, "--samples"),
        (["collect", "--model", "m", "--data", "none.json", "--out", "OUT"], 1, "m: no such model folder"),
        (["build", "--model", "a//b", "--train", "a", "--calibration", "b", "--out", "OUT"], 1, "no such model folder"),
        (["evaluate", "--model", "tiny-internvel", "--data", "none.json"], 1, "did you mean tiny-internvl"),
        (["tiny-eval", "--model", "no-such-model", "--cases", "2", "--work", "OUT"], 1, "no-such-model"),
    ],
)
def test_mistakes_end_with_a_reason_and_the_right_code(monkeypatch, capsys, tmp_path, arguments, code, words):
    monkeypatch.setattr("sys.argv", ["acs-train", *(str(tmp_path) if a == "OUT" else a for a in arguments)])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == code
    assert words in " ".join(capsys.readouterr().err.split())


def test_the_weight_of_the_attention_loss_reaches_the_trainer(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(train, "TinyTrainer", lambda out, config, *rest: made.append(config) or Mock(model_folder=out))
    for words in ([], ["--guide-weight", "0"]):
        done = runner.invoke(main.app, ["tiny", "--threads", "1", "--out", str(tmp_path), *words])
        assert done.exit_code == 0, done.output
    assert [config.guide_weight for config in made] == [TrainConfig.guide_weight, 0.0]
    assert made[0].phases == made[1].phases

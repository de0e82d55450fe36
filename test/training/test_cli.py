import json

import pytest
from typer.testing import CliRunner

from training import cli

runner = CliRunner()


def test_synth_writes_a_data_set(tmp_path):
    done = runner.invoke(cli.app, ["synth", "--split", "val", "--images", "3", "--out", str(tmp_path)])
    assert done.exit_code == 0 and "instances.json" in done.output
    assert len(json.loads((tmp_path / "instances.json").read_text())["images"]) == 3


@pytest.mark.parametrize("arch", ["internvl", "qwen2_5_vl"])
def test_tiny_eval_prints_a_row_for_every_method(arch, tmp_path):
    table = tmp_path / "table.json"
    arguments = ["tiny-eval", "--arch", arch, "--cases", "4", "--work", str(tmp_path), "--json", str(table)]
    done = runner.invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(table.read_text())
    rows = found["rows"]
    assert [r["method"] for r in rows] == [
        "greedy",
        "first-valid",
        "acs-free",
        "acs-free, auto",
        "acs-learned",
        "acs-learned, auto",
        "best of N",
    ]
    assert [r["calibration_error"] is None for r in rows] == [True, True, False, True, False, True, True]
    assert [r["samples"] for r in rows][:3] == [1.0, 10.0, 10.0] and 4 <= rows[3]["samples"] <= 10
    assert rows[-1]["accuracy"] >= max(r["accuracy"] for r in rows[1:])
    for words in ("unparseable answers", "absent objects refused", "several objects", "on one CPU thread"):
        assert words in done.output
    assert found["answer_ms"] > 0 and 0 <= found["unparseable"] <= 100 and 0 <= found["refused"] <= 100


def test_tiny_eval_draws_answered_scenes(tmp_path):
    arguments = ["tiny-eval", "--cases", "3", "--work", str(tmp_path), "--pictures", str(tmp_path / "drawn")]
    done = runner.invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["synth", "--images", "3"], 2, "--out"),
        (["tiny", "--arch", "llava", "--out", "x"], 2, "internvl, qwen2_5_vl"),
        (["tiny", "--device", "gpu", "--out", "OUT"], 1, "use auto, cpu, cuda"),
        (["tiny-eval", "--json", "no/such/folder/a.json"], 2, "does not exist"),
        (["tiny-eval", "--arch", "llava"], 2, "internvl, qwen2_5_vl"),
        (["tiny-eval", "--split", "train"], 2, "test or shifted"),
        (["synth", "--split", "dev", "--images", "3", "--out", "OUT"], 2, "train, val, test"),
        (["collect", "--model", "m", "--data", "none.json", "--out", "OUT"], 1, "cannot be read"),
        (["collect", "--model", "m", "--data", "d", "--out", "OUT", "--size", "huge"], 2, "'huge' is not one of"),
        (["fit", "--store", "none", "--out", "OUT"], 1, "holds no collection"),
        (["analyze", "--store", "none", "--out", "OUT"], 1, "holds no collection"),
        (["calibrate", "--store", "none", "--out", "OUT"], 1, "holds no collection"),
        (["build", "--model", "m", "--out", "OUT"], 2, "name the data: --coco FOLDER"),
        (["build", "--model", "m", "--coco", "none", "--train", "a", "--out", "OUT"], 2, "leave --train"),
        (["build", "--model", "m", "--coco", "none", "--out", "OUT"], 1, "laid out neither as COCO"),
        (["evaluate", "--model", "m", "--data", "none.json"], 1, "cannot be read"),
        (["evaluate", "--model", "m"], 2, "--data"),
        (["evaluate", "--model", "m", "--data", "OUT"], 1, "laid out neither as COCO"),
        (["evaluate", "--model", "m", "--data", "d", "--json", "no/such/a.json"], 2, "does not exist"),
        (["evaluate", "--model", "m", "--data", "d", "--step", "later"], 2, "'later' is not one of"),
        (["evaluate", "--model", "m", "--data", "d", "--samples", "0"], 2, "--samples"),
        (["tiny-eval", "--model", "no-such-model", "--cases", "2", "--work", "OUT"], 1, "no-such-model"),
    ],
)
def test_mistakes_end_with_a_reason_and_the_right_code(monkeypatch, capsys, tmp_path, arguments, code, words):
    monkeypatch.setattr("sys.argv", ["acs-train", *(str(tmp_path) if a == "OUT" else a for a in arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    assert words in " ".join(capsys.readouterr().err.split())

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from ground_command_parts import result
from PIL import Image
from rich.console import Console

from acs_core.cli import main, named_as_options, print_result
from acs_core.cli_options import make_parser
from acs_core.errors import ModelError
from acs_core.serialize import result_to_dict
from acs_core.types import ScoreKind


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (60, 40), (90, 90, 90)).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


def test_prints_the_answer_and_every_candidate(grounder, picture, capsys):
    assert main([picture, "key"]) == 0
    out = capsys.readouterr().out
    assert '"key" in 60 x 40 pixels, tiny' in out
    assert "box [10.0, 5.0, 18.0, 15.0]  0.90" in out
    for verdict in ("0.90 best quality, in 1 of 3 responses", "0.50 quality 0.50, candidate 1 has 0.90", "seed 3"):
        assert verdict in " ".join(out.split())


def test_words_that_the_model_does_not_know_are_named_beside_the_answer(grounder, picture, capsys):
    assert main([picture, "key; red zebra"]) == 0
    assert 'note: tiny-internvl does not know zebra of "red zebra"' in capsys.readouterr().err
    main([picture, "key"])
    assert "note" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("selector", "option", "readers"),
    [
        ("greedy", "--heads", "acs-free, acs-fusion"),
        ("acs-learned", "--joint-model", "acs-joint"),
        ("acs-free", "--regressor", "acs-learned"),
    ],
)
def test_a_file_that_the_selector_does_not_read_is_refused(grounder, picture, capsys, selector, option, readers):
    with pytest.raises(SystemExit) as ended:
        main([picture, "key", "--selector", selector, option, "f"])
    assert ended.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"the selector {selector} does not read {option}: leave it out, or choose {readers}" in said


def test_options_reach_the_grounder(grounder, picture, tmp_path):
    arguments = "--model o/m --selector acs-learned --samples 4 --temperature 0.7 --top-p 0.8 --top-k 7 --seed 11"
    more = "--multiple --min-score 0.25 --min-votes 3 --device cpu --dtype float32"
    files = "--regressor r --calibration c"
    limits = "--deadline 250 --quantization 8bit --second-look --no-check-labels"
    limits += " --max-image-tokens 640 --coordinate-frame 0-1 --whole-responses --no-speculation --prefix-bytes 9"
    assert main([picture, "key", *arguments.split(), *more.split(), *files.split(), *limits.split()]) == 0
    assert {k: str(v) for k, v in grounder.loaded.items() if v is not None} == {
        "model": "o/m",
        "selector": "acs-learned",
        "regressor": "r",
        "calibration": "c",
        "device": "cpu",
        "dtype": "float32",
        "quantization": "8bit",
        "max_image_tokens": "640",
        "coordinate_frame": "0-1",
        "prefix_bytes": "9",
    }
    config = grounder.asked.pop("sampling")
    assert (config.num_samples, config.temperature, config.top_p, config.top_k, config.seed) == (4, 0.7, 0.8, 7, 11)
    assert not config.auto and not config.speculation
    assert grounder.asked == {
        "multiple": True,
        "min_score": 0.25,
        "min_votes": 3,
        "check_labels": False,
        "whole_responses": True,
        "deadline_ms": 250.0,
        "second_look": True,
    }
    for selector, option, name in (("acs-fusion", "--heads", "heads"), ("acs-joint", "--joint-model", "joint_model")):
        assert main([picture, "key", "--selector", selector, option, "f"]) == 0
        assert str(grounder.loaded[name]) == "f" and grounder.asked["check_labels"]
    assert main([picture, "key", "--samples", "auto"]) == 0
    assert (grounder.asked["sampling"].auto, grounder.asked["sampling"].num_samples) == (True, 10)


@pytest.mark.parametrize(("arguments", "white"), [([], 15), (["--bits", "12"], 255)])
def test_bits_reach_the_reader(grounder, tmp_path, arguments, white):
    Image.fromarray(np.full((40, 60), 4095, np.uint16)).save(tmp_path / "a.png")
    assert main([str(tmp_path / "a.png"), "key", *arguments]) == 0
    assert (grounder.image == white).all()


@pytest.mark.parametrize("bits", ["8", "17", "12.5", ""])
def test_numbers_of_bits_that_do_not_exist_are_wrong_usage(grounder, picture, capsys, bits):
    with pytest.raises(SystemExit) as raised:
        main([picture, "key", "--bits", bits])
    assert raised.value.code == 2 and "--bits" in capsys.readouterr().err


def test_the_time_of_a_call_is_printed_once(grounder, picture, tmp_path, capsys):
    for phrases, last in (
        ("key", "acs-free, score: calibrated, seed 3, 12 ms"),
        ("key; mug", "2 phrases in one call: 12 ms"),
    ):
        assert main([picture, phrases]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1] == last and sum("12 ms" in line for line in lines) == 1


def test_writes_picture_and_json(grounder, picture, tmp_path, capsys):
    assert main([picture, "key", "--out", str(tmp_path / "o.png"), "--json", str(tmp_path / "o.json")]) == 0
    assert Image.open(tmp_path / "o.png").size[0] == 480
    assert json.loads((tmp_path / "o.json").read_text()) == {"written_by": "acs-ground"} | result_to_dict(result())
    assert "best quality" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--json"], ["--json", "-"]])
def test_json_alone_goes_to_standard_output(grounder, picture, capsys, arguments):
    assert main([picture, "key", *arguments]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["detections"] == [{"box": [10, 5, 18, 15], "score": 0.9, "expected_iou": None, "candidate": 1}]
    assert [c["outcome"] for c in data["candidates"]] == ["outranked", "selected", "outranked"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("best score 0.1 is below 0.3 (min_score)", "best score 0.1 is below 0.3 (--min-score)"),
        ("my/min_score.json, min_score.txt: set joint_model", "my/min_score.json, min_score.txt: set --joint-model"),
    ],
)
def test_reasons_name_options_and_not_parameters(text, shown):
    assert named_as_options(text, make_parser()) == shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "required: IMAGE, PHRASE"),
        (["a.png"], "required: PHRASE"),
        (
            ["a.png", "key", "--samples", "0"],
            "argument --samples: must be a whole number from 1 to 1024, got 0; or auto",
        ),
        (["a.png", "key", "--samples", "few"], "argument --samples: must be a whole number"),
        (
            ["a.png", "key", "--temperature", "0"],
            "must be a number from 0.0001 to 10000, got 0.0; for the most likely response, use --selector greedy",
        ),
        (["a.png", "key", "--temperature", "2e4"], "must be a number from 0.0001 to 10000, got 20000.0 (all options"),
        (["a.png", "key", "--min-score", "2"], "argument --min-score: must be a number from 0 to 1, got 2"),
        (["a.png", "key", "--min-score", "nan"], "argument --min-score: must be a number from 0 to 1, got nan"),
        (["a.png", "key", "--min-votes", "0"], "argument --min-votes: must be a whole number from 1"),
        (["a.png", "key", "--seed", "-1"], "argument --seed: must be a whole number from 0 to 2^63 - 1, got -1"),
        (["a.png", "key", "--selector", "best"], "choose one of acs-free"),
        (["a.png", "key", "--selector", "ACSfree"], "'ACSfree' (did you mean acs-free?): choose one of acs-free"),
        (["a.png", "key", "--out", "o.txt"], "--out must end in one of .png"),
        (["a.png", "key", "--nonsense"], "unrecognized arguments"),
    ],
)
def test_wrong_usage_is_exit_code_2(capsys, arguments, says):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: ["none.png", "key"], "image none.png does not exist"),
        (lambda p: [p, " \n "], "the phrase is empty"),
        (lambda p: [p, "k" * 300], "300 characters"),
        (lambda p: [p, "key", "--out", "/none/o.png"], "the folder /none does not exist"),
        (lambda p: [p, "key", "--json", "/none/o.json"], "the folder /none does not exist"),
    ],
)
def test_failures_are_one_line_and_found_before_the_model_is_loaded(grounder, picture, capsys, make, says):
    assert main(make(picture)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("acs-ground: ") and says in lines[0]
    assert grounder.loaded is None


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ModelError("broken\nmodel"), 1, "acs-ground: broken model"),
        (PermissionError(13, "Permission denied", "x"), 1, "acs-ground: x: Permission denied"),
    ],
)
def test_failures_on_the_way(grounder, picture, capsys, error, code, says):
    grounder.answer = error
    assert main([picture, "key"]) == code
    assert capsys.readouterr().err.strip() == says


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            result(min_score=0.95),
            ["no detection: best score 0.90 is below 0.95", "best, but its score 0.90 is below 0.95"],
        ),
        (
            result(texts=["banana", "banana", "x" * 500]),
            ["no detection: no box in all 3 responses", "2 x 'banana'", "xxx...'"],
        ),
        (result(kind=ScoreKind.NONE), ["no score", "score: none"]),
        (result(phrase="[red]key[/red]"), ['"[red]key[/red]"']),
    ],
)
def test_what_people_read(answer, expected, capsys):
    print_result(answer, Console(width=200))
    out = " ".join(capsys.readouterr().out.split())
    assert all(text in out for text in expected)


def test_control_characters_of_a_response_do_not_reach_the_terminal(capsys):
    print_result(result(texts=["\x1b[31mred\x07"]), Console(width=200))
    assert "\x1b" not in capsys.readouterr().out


def test_help_shows_an_example_and_loads_no_model():
    code = (
        "import sys; from acs_core.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as e: print('exit', e.code, 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 'acs-ground table.jpg "key"' in out
    assert out.splitlines()[-1] == "exit 0 False"


def test_ctrl_c_in_a_real_process_ends_with_130_and_one_line(picture):
    code = (
        "import sys, time, types\n"
        "fake = types.ModuleType('acs_core.grounder')\n"
        "class Grounder:\n"
        "    @staticmethod\n"
        "    def from_pretrained(*a, **k):\n"
        "        print('loading', flush=True); time.sleep(60)\n"
        "fake.Grounder = Grounder\n"
        "sys.modules['acs_core.grounder'] = fake\n"
        "from acs_core.entry import run\n"
        "run('acs_core.cli', 'acs-ground')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, picture, "key"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (130, "acs-ground: stopped")

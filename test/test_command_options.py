"""Senseless option values end every command with exit code 2 and words that name the option; nothing is written."""

import re

import pytest
from command_parts import argparse_parsers
from typer.testing import CliRunner

import acs_core
from acs_core.bench.cli import app as bench
from acs_core.cli import main as ground
from acs_ros.bags.bag_player import main as bag_player
from acs_ros.bags.make_bag import main as make_bag
from acs_ros.examples.ask_by_action import main as ask_by_action
from acs_ros.examples.ask_by_service import main as ask_by_service
from acs_ros.examples.ask_by_topic import main as ask_by_topic
from acs_ros.replay.cli import main as replay
from acs_ros.stress.load_cli import app as load
from acs_ros.stress.soak_cli import app as soak
from acs_ros.stress.track_check import main as track_check
from fuzz.cli import app as fuzz
from fuzz.node import main as fuzz_node
from training.cli.main import app as train

NUMBERS = ("nan", "inf", "-inf", "1e400", "-1", str(2**64), "9" * 5000, "", "x", "0x10")
TYPER = [
    (bench, ["--samples"]),
    (bench, ["--threads"]),
    (bench, ["phrases", "--phrases"]),
    (bench, ["selector", "--candidates"]),
    (load, ["--hz"]),
    (load, ["--service-ms"]),
    (load, ["--cameras"]),
    (soak, ["--minutes"]),
    (soak, ["--seed"]),
    (train, ["synth", "--out", "OUT", "--images"]),
    (train, ["collect", "--model", "m", "--data", "d", "--out", "OUT", "--temperature"]),
    (train, ["collect", "--model", "m", "--data", "d", "--out", "OUT", "--seed"]),
    (train, ["fit", "--store", "s", "--out", "OUT", "--share"]),
    (train, ["fit", "--store", "s", "--out", "OUT", "--epochs"]),
    (train, ["analyze", "--store", "s", "--out", "OUT", "--high-iou"]),
    (train, ["evaluate", "--model", "m", "--data", "d", "--curve"]),
    (train, ["report", "e.json", "--temperature"]),
    (train, ["report", "e.json", "--seed"]),
    (fuzz, ["--cases"]),
    (fuzz, ["--seed"]),
]
PLAIN = [
    (ground, ["a.png", "key", "--temperature"]),
    (ground, ["a.png", "key", "--samples"]),
    (ground, ["a.png", "key", "--seed"]),
    (ground, ["a.png", "key", "--deadline"]),
    (ground, ["a.png", "key", "--min-score"]),
    (ground, ["a.png", "key", "--top-k"]),
    (ground, ["a.png", "key", "--bits"]),
    (ground, ["a.png", "key", "--max-image-tokens"]),
    (ground, ["a.png", "key", "--prefix-bytes"]),
    (replay, ["bag", "--temperature"]),
    (replay, ["bag", "--rate"]),
    (replay, ["bag", "--frames"]),
    (replay, ["bag", "--pictures"]),
    (replay, ["bag", "--samples"]),
    (replay, ["bag", "--seed"]),
    (replay, ["bag", "--min-score"]),
    (replay, ["bag", "--prefix-bytes"]),
    (replay, ["bag", "--wait"]),
    (replay, ["bag", "--quiet"]),
    (replay, ["bag", "--min-answered"]),
    (bag_player, ["--hz"]),
    (bag_player, ["--wait"]),
    (make_bag, ["instances.json", "bag", "--frames"]),
    (make_bag, ["instances.json", "bag", "--absent-every"]),
    (track_check, ["--frames"]),
    (track_check, ["--latency"]),
    (ask_by_topic, ["key", "--answers"]),
    (ask_by_topic, ["key", "--timeout"]),
    (ask_by_service, ["key", "--timeout"]),
    (ask_by_action, ["key", "--samples"]),
    (ask_by_action, ["key", "--deadline"]),
    (ask_by_action, ["key", "--min-score"]),
    (ask_by_action, ["key", "--timeout"]),
    (fuzz_node, ["--cases"]),
    (fuzz_node, ["--seed"]),
]
MEANS_NONE = {(replay, "--seed")}  # -1: a fresh seed each


def ids(case):
    return case[1][-1]


@pytest.mark.parametrize("case", TYPER, ids=ids)
def test_numbers_of_typer_commands(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app, arguments = case
    for value in NUMBERS:
        done = CliRunner().invoke(app, [*arguments, value], terminal_width=300)
        said = re.sub(r"[\s│╭╮╰╯─]+", " ", done.output)
        assert done.exit_code == 2, (value[:30], done.output[-300:], done.exception)
        assert arguments[-1] in said.rpartition("Error")[2]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", PLAIN, ids=ids)
def test_numbers_of_other_commands(case, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main, arguments = case
    for value in NUMBERS:
        if value == "-1" and (main, arguments[-1]) in MEANS_NONE:
            continue
        with pytest.raises(SystemExit) as ended:
            main([*arguments[:-1], f"{arguments[-1]}={value}"])
        said = capsys.readouterr().err.splitlines()[-1]
        assert ended.value.code == 2 and arguments[-1] in said and len(said) < 300, (value[:30], said[:300])
        assert not value or "must be a" in said or "must be one" in said, said  # in words about the value
    assert list(tmp_path.iterdir()) == []


def test_every_number_of_an_argparse_command_is_checked():
    """A bare int or float lets NaN, infinities and 2**64 in."""
    bare = [
        f"{name} {action.option_strings or action.dest}"
        for name, make in argparse_parsers().items()
        for action in make()._actions
        if action.type in (int, float)
    ]
    assert bare == []
    tested = {(main.__module__, arguments[-1]) for main, arguments in PLAIN}
    number = {
        (name, option)
        for name, make in argparse_parsers().items()
        for action in make()._actions
        for option in action.option_strings[:1]
        if getattr(action.type, "__module__", "") in ("acs_core.option_types", "acs_ros.replay.options")
    }
    modules = {"acs_core.cli_options": "acs_core.cli", "acs_ros.replay.options": "acs_ros.replay.cli"}
    number = {(modules.get(name, name), option) for name, option in number}
    assert number - tested == {
        ("acs_core.cli", "--min-votes"),
        ("acs_core.cli", "--top-p"),
        ("acs_ros.replay.cli", "-p"),
    }


def test_every_command_tells_its_version(capsys):
    for _, make in argparse_parsers().items():
        with pytest.raises(SystemExit) as ended:
            make().parse_args(["--version"])
        assert (ended.value.code, capsys.readouterr().out) == (0, f"{make().prog} {acs_core.__version__}\n")
    for app in (bench, load, soak, train, fuzz):
        done = CliRunner().invoke(app, ["--version"], prog_name="acs-x")
        assert (done.exit_code, done.output) == (0, f"acs-x {acs_core.__version__}\n")
        assert "--version" in CliRunner().invoke(app, ["--help"]).output


NAMES = ("/a b", "/a//b", "/\u00e9", "/x\x1b[2J", "/1a", "~x", "/", "/" + "a" * 300)


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (ask_by_topic, ["key", "--node"]),
        (ask_by_service, ["key", "--node"]),
        (ask_by_action, ["key", "--node"]),
        (bag_player, ["--image-topic"]),
        (bag_player, ["--query-topic"]),
        (bag_player, ["--truth-topic"]),
        (replay, ["bag", "--node"]),
        (replay, ["bag", "--live", "--publish-to"]),
    ],
)
def test_names_that_ros_does_not_have(main, arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        with pytest.raises(SystemExit) as ended:
            main([*arguments[:-1], f"{arguments[-1]}={name}"])
        said = capsys.readouterr().err.splitlines()[-1]
        assert ended.value.code == 2 and f"argument {arguments[-1]}: must be a " in said and len(said) < 300, said
        assert "\x1b" not in said


@pytest.mark.parametrize(
    ("app", "arguments", "option"),
    [
        (train, ["synth", "--out", ""], "--out"),
        (train, ["synth", "--out="], "--out"),
        (train, ["collect", "--model", "", "--data", "d", "--out", "o"], "--model"),
        (bench, ["--shape", ""], "--shape"),
        (load, ["--log", ""], "--log"),
        (soak, ["--out", ""], "--out"),
    ],
)
def test_empty_texts_of_typer_commands(app, arguments, option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, arguments, terminal_width=300)
    assert done.exit_code == 2 and f"{option} is empty" in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("main", "arguments", "said"),
    [
        (ground, ["a.png", "key", "--out", ""], "--out is empty"),
        (ground, ["", "key"], "an argument is empty"),
        (ground, ["a.png", "key", "--model="], "--model is empty"),
        (replay, ["bag", "--out", ""], "--out is empty"),
        (replay, ["bag", "--model="], "--model is empty"),
        (bag_player, ["--image-topic", ""], "--image-topic is empty"),
        (make_bag, ["instances.json", ""], "an argument is empty"),
        (track_check, ["--json", ""], "--json is empty"),
        (ask_by_topic, [""], "an argument is empty"),
        (ask_by_service, ["--node", ""], "--node is empty"),
        (ask_by_action, ["key", "--picture="], "--picture is empty"),
        (fuzz_node, ["--log", ""], "--log is empty"),
    ],
)
def test_empty_texts_of_other_commands(main, arguments, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and said in capsys.readouterr().err

from __future__ import annotations

import subprocess
import sys

import pytest

from acs_core import Grounder
from acs_core.artifacts.hub import HubRepository
from acs_core.artifacts.model_name import check_model_name, name_problem
from acs_core.artifacts.registry import model_names
from acs_core.errors import ModelError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder, with a folder of a model, one without, and a file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "model").mkdir(parents=True)
    (tmp_path / "weights").touch()
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [*model_names(), "runs/model", "runs", "./runs/model/", "owner/name", "OpenGVLab/InternVL3_5-8B-HF", "a/b_.c"],
)
def test_what_can_be_a_model_is_taken(name, folder):
    assert name_problem(name) == ""
    check_model_name(name)


@pytest.mark.parametrize(
    "name",
    ["./nothing", "../nothing", "/no/such/folder", "~/x", "a/b/c", "nothing/", "owner/name/", "weights", "a\\b"],
)
def test_a_path_that_is_not_there_is_no_folder(name):
    assert name_problem(name) == "no such model folder: check the path, or give a hub id like owner/name"


def test_a_name_below_a_folder_that_is_there_is_a_path():
    assert name_problem("runs/files").startswith("no such model folder, though runs is there: check the path")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("tiny-internvel", "did you mean tiny-internvl or tiny-qwen2.5-vl?"),
        ("Qwen2.5-VL-7B", "did you mean qwen2.5-vl-7b or tiny-qwen2.5-vl?"),
        ("nothing", "shipped with acs are internvl3.5-8b, qwen2.5-vl-7b, tiny-internvl, tiny-qwen2.5-vl"),
    ],
)
def test_a_name_like_a_short_one_is_answered_with_the_nearest(name, near):
    said = name_problem(name)
    assert said.startswith("no such model folder, nor a short name") and near in said


@pytest.mark.parametrize(
    "name",
    ["own er/name", "owner/na:me", "-owner/name", "owner/name.", "a--b/c", "a/b..c", "é/x", "a/" + "b" * 95, "a/b\n"],
)
def test_what_no_hub_id_looks_like_is_refused(name):
    assert "nor a hub id, which is owner/name of ASCII letters" in name_problem(name)


@pytest.mark.parametrize("name", ["", "  ", "\n"])
def test_an_empty_name_is_refused(name):
    with pytest.raises(ModelError, match=r"^'.*': the model's name is empty: give a folder"):
        check_model_name(name)


@pytest.mark.parametrize("name", ["x" * 10**5, "a\0b", "a/" * 10**4])
def test_names_that_the_system_refuses_are_no_folders(name):
    with pytest.raises(ModelError) as caught:
        check_model_name(name)
    assert len(str(caught.value)) <= 2000


def test_the_library_asks_nothing_of_the_hub(monkeypatch):
    monkeypatch.setattr(HubRepository, "resolve", lambda *_, **__: pytest.fail("the hub is asked"))
    with pytest.raises(ModelError, match="runs/files: no such model folder"):
        Grounder.from_pretrained("runs/files")


@pytest.mark.parametrize(
    "command",
    [
        "from acs_core.cli import main; code = main(['photo.png', 'key', '--model', 'runs/files'])",
        "from acs_ros.bags.bags import DEMO_BAG; from acs_ros.replay.cli import main\n"
        "code = main([str(DEMO_BAG), '--model', 'runs/files'])",
        "sys.argv[1:] = ['evaluate', '--data', 'd', '--model', 'runs/files']\n"
        "from training.cli.main import main\ntry: main()\nexcept SystemExit as end: code = end.code",
        "sys.argv[1:] = ['collect', '--data', 'd', '--out', 'o', '--model', 'runs/files']\n"
        "from training.cli.main import main\ntry: main()\nexcept SystemExit as end: code = end.code",
        "from types import SimpleNamespace as S; from acs_ros.node.model_loader import load_grounder\n"
        "try: load_grounder(S(model='runs/files'))\nexcept Exception as e: code = 1; print(e, file=sys.stderr)",
    ],
    ids=["acs-ground", "acs-replay", "acs-train evaluate", "acs-train collect", "node"],
)
def test_a_command_refuses_it_before_torch_is_imported(command):
    script = f"import sys\n{command}\nprint(code, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["1 False"], done.stderr
    assert "runs/files: no such model folder, though runs is there" in done.stderr

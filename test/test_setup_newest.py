"""The environment with the newest transformers, and the range of releases that setup.py declares."""

import re
from pathlib import Path

import newest_transformers
import pytest
import transformers


def version(text):
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def test_the_release_in_use_and_the_pinned_one_are_in_the_declared_range(repo):
    low, high = re.search(r'"transformers>=([\d.]+),<([\d.]+)"', (repo / "setup.py").read_text()).groups()
    pinned = re.search(r"^transformers==([\d.]+)$", (repo / "requirements" / "runtime.txt").read_text(), re.MULTILINE)[
        1
    ]
    for used in (pinned, transformers.__version__):
        assert version(low) <= version(used) < version(high)


def test_a_folder_of_somebody_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("x")
    assert newest_transformers.main([str(tmp_path)]) == 1
    assert "was not made by this program" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.fixture
def steps(monkeypatch, tmp_path):
    """The commands that would run; the environment itself is a folder without content."""
    run = []

    def pretend(command, **options):
        run.append([str(word) for word in command])
        if "venv" in run[-1]:
            (tmp_path / "env").mkdir()
        found = tmp_path / "env" / "lib"
        found.mkdir(exist_ok=True)
        return type("Done", (), {"stdout": f"{found}\n"})

    monkeypatch.setattr(newest_transformers.subprocess, "run", pretend)
    return run


def test_only_transformers_is_installed_beside_the_usual_environment(steps, tmp_path):
    for _ in range(2):  # the second time the folder is made anew
        assert newest_transformers.main([str(tmp_path / "env")]) == 0
    venv, _, upgrade, package, shown = steps[:5]
    assert venv[1:] == ["-m", "venv", "--without-pip", str(tmp_path / "env")]
    assert upgrade[0].startswith(str(tmp_path / "env")) and upgrade[-2:] == ["--upgrade", "transformers"]
    assert "--no-deps" in package and Path(package[-1]) == newest_transformers.ROOT
    assert "transformers.__version__" in shown[-1]
    shared = (tmp_path / "env" / "lib" / newest_transformers.SHARED).read_text()
    assert shared.startswith("import site; site.addsitedir(")

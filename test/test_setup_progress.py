"""The set-up says what pip does, in a few lines."""

import sys

import pytest
import set_up
from pip_progress import LEAST, PipProgress
from set_up import SetUp, say


def lines_of(count):
    yield "Looking in indexes: https://index.example/simple"
    for i in range(count):
        yield f"Collecting package-{i}==1.{i} (from -r environment.txt (line {i}))"
        yield f"  Downloading package_{i}-1.{i}-py3-none-any.whl (16 kB)"
    yield "Installing collected packages: " + ", ".join(f"package-{i}" for i in range(count))
    yield "Successfully installed " + " ".join(f"package-{i}-1.{i}" for i in range(count))


def told(lines, total):
    said, shown = [], []
    progress = PipProgress(total, said.append, shown.append)
    for line in lines:
        progress(line)
    return said, shown


def test_quarters_and_the_unpacking_are_said():
    said, shown = told(lines_of(200), 200)
    assert said == [
        "50 of 200 packages are here",
        "100 of 200 packages are here",
        "150 of 200 packages are here",
        "unpacking 200 packages (a minute)",
    ]
    assert shown[0] == "1 of 200 packages: package-0" and len(shown) == 201


def test_few_packages_have_no_lines_of_their_own():
    said, shown = told(lines_of(LEAST - 1), LEAST - 1)
    assert said == [] and shown[-1] == f"unpacking {LEAST - 1} packages"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("Collecting numpy==2.3.1 (from -r a.txt (line 1))", "numpy"),
        ("Processing /wheels/torch-2.13.0+cpu-cp311-linux_x86_64.whl (from -r a.txt (line 2))", "torch"),
        ("Requirement already satisfied: pyyaml>=6 in /x (6.0)", "pyyaml"),
        ("Requirement already satisfied: ros-kilted-rclpy==9.1.2 in /x", "ros-kilted-rclpy"),
    ],
)
def test_the_package_of_the_moment_is_shown(line, name):
    assert told([line], 3) == ([], [f"1 of 3 packages: {name}"])


def test_a_fresh_environment_says_each_stage(tmp_path, monkeypatch, capsys):
    """pip is a program that prints what the real one does, for the lock files that it is given."""
    venv = tmp_path / "venv"
    made = SetUp(venv)
    made.work.mkdir(parents=True)
    (venv / "bin").mkdir()
    script = tmp_path / "pip.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(set_up.ROOT / 'tools')!r})\n"
        "import locked\n"
        "from pathlib import Path\n"
        "names = [n for a in sys.argv if a.startswith('-r') for n in locked.read(Path(a[2:]))]\n"
        "print(*(f'Collecting {n}==1' for n in names), sep='\\n')\n"
        "print('Installing collected packages:', ', '.join(names))\n"
    )
    made.python.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    made.python.chmod(0o755)
    made._step("wheels", "a", "installing the pinned wheels", made._install_wheels)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "set-up: installing the pinned wheels"
    assert [line.split()[-2:] for line in lines[1:4]] == [["are", "here"]] * 3
    assert lines[4].startswith("set-up:   unpacking ") and lines[5] == "set-up:   PyTorch, the largest"
    assert len(lines) == 6 and all("\x1b" not in line for line in lines)


def test_on_a_terminal_a_line_takes_the_place_of_what_is_shown(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    say("unpacking")
    assert capsys.readouterr().out == "\r\x1b[Kset-up:   unpacking\n"

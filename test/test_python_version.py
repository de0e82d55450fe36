"""On a Python that is too old everything says so in one line, before any other import fails."""

import subprocess
import sys

import pytest

NEEDS = "acs needs Python 3.11 or later (ROS 2 Jazzy or later), this is Python 3.10"
OLD = "import sys; sys.version_info = (3, 10, 12, 'final', 0); "


@pytest.mark.parametrize(
    ("code", "start"),
    [
        ("import acs_core", "ImportError: "),
        ("import acs_ros.launch_checks", "ImportError: "),
        ("import training.settings", "ImportError: "),
        ("from acs_core.cli import main", "ImportError: "),
    ],
)
def test_imports_end_in_that_line(repo, code, start):
    done = subprocess.run([sys.executable, "-c", OLD + code], cwd=repo, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(start + NEEDS)


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("from acs_ros.commands import acs_ground", f"acs: {NEEDS}: see docs/robot_setups.md\n"),
        ("import runpy; runpy.run_path('setup.py')", f"{NEEDS}\n"),
    ],
)
def test_commands_and_setup_print_nothing_else(repo, code, line):
    done = subprocess.run([sys.executable, "-c", OLD + code], cwd=repo, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, line)

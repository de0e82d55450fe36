"""What is missing on a machine is said in one line, before anything is created."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from machine_check import HostState, one_line, problems, this_machine

GOOD = HostState(
    system="Linux",
    arch="x86_64",
    python=(3, 11),
    has_venv=True,
    has_headers=True,
    cxx="/usr/bin/g++",
    make="/usr/bin/make",
    free_bytes=100 * 10**9,
)


@pytest.mark.parametrize("python", [(3, 11), (3, 12)])
def test_a_good_machine_has_no_problem(python):
    assert problems(dataclasses.replace(GOOD, python=python)) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cxx": None}, ["no C++ compiler", "apt install g++"]),
        ({"make": None}, ["no make", "apt install make"]),
        ({"has_venv": False}, ["venv", "apt install python3.11-venv"]),
        ({"has_headers": False}, ["Python.h", "apt install python3.11-dev"]),
        ({"python": (3, 9)}, ["this Python is 3.9", "3.11 or 3.12", "PYTHON="]),
        ({"python": (3, 13)}, ["this Python is 3.13", "3.11 or 3.12"]),
        ({"arch": "aarch64"}, ["aarch64", "x86-64"]),
        ({"system": "Darwin"}, ["Darwin", "Linux"]),
        ({"free_bytes": 10**9}, ["1.0 GB", "free 5 GB"]),
        ({"cxx": None, "has_venv": False}, ["no C++ compiler", "ensurepip", "apt install python3.11-venv g++"]),
    ],
)
def test_each_problem_is_named_with_its_remedy(change, words):
    line = one_line(problems(dataclasses.replace(GOOD, **change)))
    assert "\n" not in line
    for word in words:
        assert word in line


def executable(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def set_up(repo: Path, path: Path, venv: Path, ros: str = "kilted", **environ: str) -> subprocess.CompletedProcess:
    command = ["/bin/sh", str(repo / "tools" / "set_up.sh"), "--venv", str(venv), "--ros", ros]
    return subprocess.run(command, env={"PATH": str(path), **environ}, capture_output=True, text=True, timeout=60)


def one_error_line(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("set-up: ")
    return line


def test_no_python_at_all(repo, tmp_path):
    (tmp_path / "bin").mkdir()
    line = one_error_line(set_up(repo, tmp_path / "bin", tmp_path / "venv"))
    assert "no Python found" in line
    assert "3.11 or 3.12" in line


@pytest.mark.parametrize("version", ["3.9.2", "3.13.0", "2.7.18"])
def test_only_another_python(repo, tmp_path, version):
    executable(tmp_path / "bin", "python3", f"echo {version}")
    line = one_error_line(set_up(repo, tmp_path / "bin", tmp_path / "venv"))
    assert f"python3 is {version}" in line
    assert "apt install python3" in line and "uv python install 3.12" in line


def test_a_python_that_is_named_and_does_not_run(repo, tmp_path):
    (tmp_path / "bin").mkdir()
    line = one_error_line(set_up(repo, tmp_path / "bin", tmp_path / "venv", PYTHON="python3.12"))
    assert "PYTHON=python3.12 does not run" in line


def test_a_later_name_is_taken_where_python3_is_too_old(repo, tmp_path):
    executable(tmp_path / "bin", "python3", "echo 3.9.2")
    executable(tmp_path / "bin", "python3.12", 'case "$1" in -c) echo 3.12.1 ;; *) echo "ran $1" ;; esac')
    done = set_up(repo, tmp_path / "bin", tmp_path / "venv")
    assert done.stdout.strip().endswith("tools/set_up.py")


PYTHON_3_12 = 'case "$1" in -c) echo 3.12.1 ;; *) echo "ran $*" ;; esac'


def test_jazzy_takes_its_own_python_alone(repo, tmp_path):
    executable(tmp_path / "bin", "python3", "echo 3.11.2")
    line = one_error_line(set_up(repo, tmp_path / "bin", tmp_path / "venv", ros="jazzy"))
    assert "ROS Jazzy needs Python 3.12, but python3 is 3.11.2" in line and "uv python install 3.12" in line
    executable(tmp_path / "bin", "python3.12", PYTHON_3_12)
    done = set_up(repo, tmp_path / "bin", tmp_path / "venv", ros="jazzy")
    assert done.stdout.startswith("ran ") and done.stdout.endswith("--ros jazzy\n")


def test_a_python_that_is_named_is_taken_for_jazzy_too(repo, tmp_path):
    executable(tmp_path / "bin", "mine", 'case "$1" in -c) echo 3.11.2 ;; *) echo "mine ran" ;; esac')
    done = set_up(repo, tmp_path / "bin", tmp_path / "venv", ros="jazzy", PYTHON=str(tmp_path / "bin" / "mine"))
    assert done.stdout == "mine ran\n"


@pytest.mark.parametrize(
    ("folder", "variable"),
    [
        (".local/share/uv/python/cpython-3.12.9-linux-x86_64-gnu", "HOME"),
        (".pyenv/versions/3.12.1", "HOME"),
        ("3.12.1", "UV_PYTHON_INSTALL_DIR"),
        ("versions/3.12.1", "PYENV_ROOT"),
    ],
)
def test_a_python_of_uv_or_pyenv_is_found(repo, tmp_path, folder, variable):
    executable(tmp_path / "bin", "python3", "echo 3.10.1")
    (tmp_path / "home" / folder).mkdir(parents=True)
    executable(tmp_path / "home" / folder / "bin", "python3.12", PYTHON_3_12)
    home = {variable: str(tmp_path / "home")}
    assert set_up(repo, tmp_path / "bin", tmp_path / "venv", "jazzy", **home).stdout.startswith("ran ")


def test_an_environment_keeps_the_python_it_was_made_with(repo, tmp_path):
    executable(tmp_path / "bin", "python3", "echo 3.13.0")
    executable(tmp_path / "my pythons", "python", 'case "$1" in -c) echo 3.12.1 ;; *) echo "mine ran $1" ;; esac')
    (tmp_path / "venv" / ".acs").mkdir(parents=True)
    (tmp_path / "venv" / ".acs" / "python").write_text(f"{tmp_path / 'my pythons' / 'python'}\n")
    done = set_up(repo, tmp_path / "bin", tmp_path / "venv")
    assert done.stdout.startswith("mine ran ")


def test_no_compiler(repo, tmp_path):
    real = Path(sys.executable).resolve()
    executable(tmp_path / "bin", "python3", f'exec {real} "$@"')
    line = one_error_line(set_up(repo, tmp_path / "bin", tmp_path / "venv"))
    assert "no C++ compiler (g++)" in line
    assert "apt install" in line
    assert not (tmp_path / "venv").exists()


def test_a_compiler_that_is_named_counts(tmp_path):
    executable(tmp_path / "bin", "clang++", "")
    folder = tmp_path / "not" / "yet" / "there"
    machine = this_machine(folder, {"PATH": str(tmp_path / "bin"), "CXX": "clang++"})
    assert machine.cxx == str(tmp_path / "bin" / "clang++")
    assert this_machine(folder, {"PATH": os.devnull}).cxx is None

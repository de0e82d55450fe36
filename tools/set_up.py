"""Make the virtual environment that acs runs in, or bring it up to date: ``set_up.py [--venv FOLDER]``.

Four steps, each with a stamp over everything it was made from: the environment itself, the pinned wheels, the message
packages, the acs package. A step runs when its stamp is missing or differs, and its stamp is written only after it
has finished, so what was cut short is done again and never trusted. Run it through set_up.sh or ``make env``.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from build_interfaces import InterfaceBuild, clean_environment
from machine_check import one_line, problems, this_machine
from run_logged import StepFailed, run_logged

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ("runtime.txt", "ros.txt", "training.txt", "dev.txt")
INTERFACES = ("vision_msgs", "acs_msgs")  # in the order they depend on each other
# What setup.py copies into the environment; the Python code itself is used from where it lies.
PACKAGE_INPUTS = ("setup.py", "pyproject.toml", "package.xml", "resource", "launch", "config")
SELF_TEST = "import rclpy; from vision_msgs.msg import Detection2DArray; from acs_msgs.msg import CandidateArray"


def digest(paths: Iterable[Path], *more: str) -> str:
    """SHA-256 over the names and contents of files (folders: all files in them) and over ``more``."""
    sha = hashlib.sha256()
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            if file.exists() and "__pycache__" not in file.parts:
                content = file.read_bytes()
                sha.update(f"{file.relative_to(ROOT)}\0{file.stat().st_mode & 0o111}\0{len(content)}\0".encode())
                sha.update(content)
    sha.update("\0".join(more).encode())
    return sha.hexdigest()


def show(line: str) -> None:
    """On a terminal, show the running command's last line in place; elsewhere the log is enough."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 3
        print(f"\r\x1b[K  {line[:width]}", end="\r", flush=True)


class SetUp:
    """The environment in ``venv`` and the stamps of what it was made from."""

    def __init__(self, venv: Path) -> None:
        self.venv = venv
        self.python = venv / "bin" / "python"
        self.work = venv / ".acs"
        self.stamp_file = self.work / "stamps.json"
        self.changed = False

    def bring_up_to_date(self) -> None:
        """Run the steps that are due, in order. Raises StepFailed with a message for a person."""
        stamps = self._stamps()
        wheels = digest([ROOT / "requirements" / name for name in (*REQUIREMENTS, "constraints.txt")])
        if not self._usable(stamps):
            self._create()
        version = subprocess.run([self.python, "-V"], capture_output=True, text=True, check=True).stdout
        self._step("wheels", wheels, "installing the pinned wheels (about 1 GB, minutes)", self._install_wheels)
        tools = [Path(__file__).parent / name for name in ("build_interfaces.py", "drop_missing_includes.cmake")]
        below = digest(tools, version, wheels)
        for name in INTERFACES:
            build = InterfaceBuild(ROOT / "msg" / name, self.venv, self.work)
            below = digest([build.source], below)
            if not build.is_provided():
                jobs = len(os.sched_getaffinity(0))
                self._step(name, below, f"building msg/{name} (a minute)", partial(build.run, jobs, show))
        package = digest([ROOT / name for name in PACKAGE_INPUTS], str(ROOT))
        self._step("package", package, "installing the acs package itself", self._install_package)
        if self.changed:
            self._self_test()

    def _usable(self, stamps: dict[str, str]) -> bool:
        """Whether the environment can be kept. One whose wheels were cut short cannot: pip trusts a package that it
        unpacked half-way."""
        if "wheels" not in stamps or stamps.get("venv") != str(self.venv) or not self.python.exists():
            return False
        named = os.environ.get("PYTHON")
        wanted = f"{sys.version_info.major}.{sys.version_info.minor}"
        here = subprocess.run(
            [self.python, "-c", "import sys; print('{}.{}'.format(*sys.version_info[:2]))"],
            capture_output=True,
            text=True,
            env=clean_environment(self.venv),
        )
        return here.returncode == 0 and (not named or here.stdout.strip() == wanted)

    def _create(self) -> None:
        found = problems(this_machine(self.venv))
        if found:
            raise StepFailed(one_line(found))
        if self.venv.exists():
            if not self.work.is_dir():
                raise StepFailed(f"{self.venv} was not made by this set-up: move it away, or name another VENV=folder")
            shutil.rmtree(self.venv)
        print(f"set-up: creating {self.venv} with Python {sys.version.split()[0]}", flush=True)
        self.work.mkdir(parents=True)
        run_logged(
            [sys.executable, "-m", "venv", str(self.venv)],
            self.work / "venv.log",
            clean_environment(self.venv),
            show,
        )
        (self.work / "python").write_text(f"{sys.executable}\n")  # set_up.sh asks it first from now on
        self._write_stamps({"venv": str(self.venv)})

    def _install_wheels(self) -> None:
        files = [f"-r{ROOT / 'requirements' / name}" for name in REQUIREMENTS]
        constraints = ROOT / "requirements" / "constraints.txt"
        self._pip("wheels.log", *files, f"-c{constraints}")

    def _install_package(self) -> None:
        # --force-reinstall: the version is the same, yet launch and config files may have changed.
        self._pip("package.log", "--no-deps", "--no-build-isolation", "--force-reinstall", "-e", str(ROOT))

    def _pip(self, log: str, *arguments: str) -> None:
        pip = [str(self.python), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off"]
        path = self.work / log
        path.unlink(missing_ok=True)
        run_logged([*pip, *arguments], path, clean_environment(self.venv), show)

    def _step(self, name: str, stamp: str, title: str, action: Callable[[], None]) -> None:
        stamps = self._stamps()
        if stamps.get(name) == stamp:
            return
        stamps.pop(name, None)
        self._write_stamps(stamps)
        self.changed = True
        print(f"set-up: {title}", flush=True)
        action()
        self._write_stamps({**stamps, name: stamp})

    def _self_test(self) -> None:
        """The promise of the environment: messages and DDS bindings import with no variable set at all."""
        done = subprocess.run([self.python, "-c", SELF_TEST], env={}, capture_output=True, text=True)
        if done.returncode != 0:
            raise StepFailed(
                f"the environment is complete but does not import:\n{done.stderr.strip()}\n  try: make clean env"
            )
        print(f"set-up: {self.venv} is ready", flush=True)

    def _stamps(self) -> dict[str, str]:
        try:
            return dict(json.loads(self.stamp_file.read_text()))
        except (OSError, ValueError):
            return {}  # no stamps, or stamps cut short: every step is due

    def _write_stamps(self, stamps: dict[str, str]) -> None:
        temporary = self.stamp_file.with_suffix(".new")
        temporary.write_text(json.dumps(stamps, indent=1))
        temporary.replace(self.stamp_file)


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold the lock of this working tree, so that two ``make`` runs do not build into each other."""
    folder = os.open(ROOT / "tools", os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("set-up: waiting for another set-up in this folder", flush=True)
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def main() -> int:
    """Exit status 0: the environment is up to date. 1: it is not, and one message says why."""
    parser = argparse.ArgumentParser(description="Make the virtual environment of acs, or bring it up to date.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where it lies (default: .venv)")
    venv = Path(os.path.abspath(parser.parse_args().venv))  # not resolve(): a link is the user's choice
    try:
        with one_at_a_time():
            SetUp(venv).bring_up_to_date()
    except StepFailed as failure:
        print(f"set-up: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: interrupted; the next run repairs what was cut short", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

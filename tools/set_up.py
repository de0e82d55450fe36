"""Create the virtual environment that acs runs in, or update it: ``set_up.py [--venv FOLDER] [--ros DISTRIBUTION]``.

There are four steps: the environment itself, the locked wheels, the message packages, the acs package. Each has a
stamp, a digest of its inputs. A step runs if its stamp is missing or differs, and the stamp is written only after the
step has finished, so interrupted steps are repeated. Downloads whose SHA-256 is not in requirements/locked are refused.
Run it through set_up.sh or ``make env``.
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import locked
from build_interfaces import InterfaceBuild, clean_environment
from machine_check import one_line, problems, this_machine
from pip_progress import PipProgress
from run_logged import StepFailed, run_logged

ROOT = Path(__file__).resolve().parent.parent
INTERFACES = ("tf2_msgs", "vision_msgs", "acs_msgs")  # in order of dependence
# Files that setup.py copies into the environment; the Python code is used in place.
DEFAULT_ROS = next(iter(locked.DISTRIBUTIONS))
PACKAGE_INPUTS = ("setup.py", "pyproject.toml", "package.xml", "resource", "launch", "config")
SELF_TEST = "import rclpy; from vision_msgs.msg import Detection2DArray; from acs_msgs.msg import CandidateArray"


def digest(paths: Iterable[Path], *more: str) -> str:
    """Return the SHA-256 over the names and contents of files (folders: all files in them) and over ``more``."""
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
    """Show the last line of the running command in place on a terminal; elsewhere print nothing."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 3
        print(f"\r\x1b[K  {line[:width]}", end="\r", flush=True)


def say(line: str) -> None:
    """Print a line about the running step that stays, in place of what :func:`show` shows."""
    clear = "\r\x1b[K" if sys.stdout.isatty() else ""
    print(f"{clear}set-up:   {line}", flush=True)


class SetUp:
    """The environment in ``venv`` with the wheels of the ROS distribution ``ros``, and the stamps of its steps."""

    def __init__(self, venv: Path, ros: str = DEFAULT_ROS) -> None:
        self.venv = venv
        self.ros = ros
        self.ros_lock = locked.DISTRIBUTIONS[ros]
        self.python = venv / "bin" / "python"
        self.work = venv / ".acs"
        self.stamp_file = self.work / "stamps.json"
        self.changed = False

    def bring_up_to_date(self) -> None:
        """Run the steps that are due, in order.

        Raises:
            StepFailed: a step failed; the message is meant for the user.
        """
        stamps = self._stamps()
        wheels = digest([locked.ENVIRONMENT, self.ros_lock, locked.SOURCES, locked.TORCH_CPU, locked.TORCH_GPU])
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
        """Return whether the environment can be kept.

        It cannot if the installation of its wheels was interrupted, since pip trusts a partially unpacked package, or
        if it has the wheels of another ROS distribution: of those that this one does not have, files would remain.
        """
        if "wheels" not in stamps or stamps.get("venv") != str(self.venv) or not self.python.exists():
            return False
        if stamps.get("ros", DEFAULT_ROS) != self.ros:
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
        print(f"set-up: creating {self.venv} with Python {sys.version.split()[0]} and ROS {self.ros}", flush=True)
        self.work.mkdir(parents=True)
        run_logged(
            [sys.executable, "-m", "venv", str(self.venv)],
            self.work / "venv.log",
            clean_environment(self.venv),
            show,
        )
        (self.work / "python").write_text(f"{sys.executable}\n")  # set_up.sh tries it first from now on
        self._write_stamps({"venv": str(self.venv), "ros": self.ros})

    def _install_wheels(self) -> None:
        self._pip("wheels.log", *locked.WHEELS_ONLY, files=(locked.ENVIRONMENT, self.ros_lock))
        self._pip("sources.log", *locked.BUILT_HERE, files=(locked.SOURCES,))
        say("PyTorch, the largest")
        self._install_torch()
        # Dependencies were not resolved: report here what the lock files lack, not at the first import.
        check = [str(self.python), "-m", "pip", "check"]
        run_logged(check, self.work / "check.log", clean_environment(self.venv), show)

    def _install_torch(self) -> None:
        """Install PyTorch's CPU build if the user's pip finds it, else the GPU build with its libraries."""
        try:
            self._pip("torch_cpu.log", *locked.WHEELS_ONLY, files=(locked.TORCH_CPU,))
        except StepFailed:
            if not locked.not_offered((self.work / "torch_cpu.log").read_text()):
                raise
            say("the build for GPUs, since no index that pip asks has the one for CPUs (2 GB)")
            self._pip("torch_gpu.log", *locked.WHEELS_ONLY, files=(locked.TORCH_GPU,))

    def _install_package(self) -> None:
        # --force-reinstall: launch and config files may have changed although the version is the same.
        self._pip("package.log", "--no-deps", "--no-build-isolation", "--force-reinstall", "-e", str(ROOT))

    def _pip(self, log: str, *arguments: str, files: Sequence[Path] = ()) -> None:
        """Run ``pip install`` with ``arguments`` and for the packages of the lock ``files``."""
        arguments = (*arguments, *(f"-r{file}" for file in files))
        progress = PipProgress(len(locked.read(*files)), say, show)
        pip = [str(self.python), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off"]
        path = self.work / log
        path.unlink(missing_ok=True)
        try:
            run_logged([*pip, *arguments], path, clean_environment(self.venv), progress)
        except StepFailed as failure:
            refused = locked.refusal(path.read_text())
            raise StepFailed(f"{refused}\n  whole log: {path}") if refused else failure from None

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
        """Check that messages and DDS bindings can be imported without any environment variable."""
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
            return {}  # no stamps, or a damaged file: every step is due

    def _write_stamps(self, stamps: dict[str, str]) -> None:
        temporary = self.stamp_file.with_suffix(".new")
        temporary.write_text(json.dumps(stamps, indent=1))
        temporary.replace(self.stamp_file)


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold the lock of this working tree, so that two ``make`` runs do not build at the same time."""
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
    """Run the set-up; return exit status 0, or 1 after printing why it failed."""
    parser = argparse.ArgumentParser(description="Make the virtual environment of acs, or bring it up to date.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where it lies (default: .venv)")
    parser.add_argument("--ros", choices=locked.DISTRIBUTIONS, default=DEFAULT_ROS, help="(default: %(default)s)")
    options = parser.parse_args()
    venv = Path(os.path.abspath(options.venv))  # not resolve(): a link is the user's choice
    try:
        with one_at_a_time():
            SetUp(venv, options.ros).bring_up_to_date()
    except StepFailed as failure:
        print(f"set-up: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: interrupted; the next run repairs what was cut short", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Run the steps of a Containerfile in a root made by debootstrap, without a container engine.

``container_steps.py ROOT [--bind PATH ...] [--env NAME ...] [--from-step N]``, as root, for example::

    debootstrap --variant=minbase bookworm /tmp/acs-root
    python3 tools/container_steps.py /tmp/acs-root

COPY takes the files that git tracks. ``--bind`` shows a path of this machine in the root, ``--env`` passes a variable:
what pip and apt need on this machine, such as certificates. The steps change ROOT, like those of a container build.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INSTRUCTIONS = ("FROM", "RUN", "COPY", "ENV", "WORKDIR", "USER", "CMD")


class StepError(Exception):
    """Raised if a Containerfile cannot be read or one of its steps fails."""


@dataclass(frozen=True)
class Step:
    """One instruction: its name in capitals, and the rest of its line with continuation lines joined."""

    name: str
    text: str


@dataclass
class BuildState:
    """What the instructions so far set for the next ones."""

    env: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    folder: str = "/"
    user: str = "root"


def parse(text: str) -> list[Step]:
    """Return the steps of a Containerfile.

    Raises:
        StepError: an instruction is not one of INSTRUCTIONS.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    steps = []
    for line in filter(str.strip, joined.splitlines()):
        name, _, rest = line.strip().partition(" ")
        if name.upper() not in INSTRUCTIONS:
            raise StepError(f"{name}: only {', '.join(INSTRUCTIONS)} are known here")
        steps.append(Step(name.upper(), rest.strip()))
    return steps


def expanded(text: str, env: Mapping[str, str]) -> str:
    """Return ``text`` with ``$NAME`` and ``${NAME}`` replaced by the values in ``env``; unknown names become empty."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: env.get(found[1] or found[2], ""), text)


def variables(text: str, env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that ``ENV text`` sets.

    Raises:
        StepError: a part is not ``NAME=value``.
    """
    found = {}
    for part in shlex.split(expanded(text, env)):
        name, equals, value = part.partition("=")
        if not equals:
            raise StepError(f"ENV {part}: write NAME=value")
        found[name] = value
    return found


class DebootstrapRoot:
    """Runs steps in ``root``; ``passed`` are environment variables of this machine that every RUN gets."""

    def __init__(self, root: Path, passed: Mapping[str, str]) -> None:
        self.root = root
        self.passed = dict(passed)
        self.state = BuildState()

    def apply(self, step: Step) -> None:
        """Carry out one step.

        Raises:
            StepError: its command failed.
        """
        state = self.state
        if step.name == "ENV":
            state.env |= variables(step.text, state.env)
        elif step.name == "WORKDIR":
            state.folder = str(Path(state.folder) / expanded(step.text, state.env))
            self._inside(f"mkdir -p {shlex.quote(state.folder)}", user="root", folder="/")
        elif step.name == "USER":
            state.user = expanded(step.text, state.env)
        elif step.name == "COPY":
            self._copy(step.text)
        elif step.name == "RUN":
            self._inside(step.text, state.user, state.folder)

    def run_command(self, text: str) -> None:
        """Run a command as a container of the image would, in the state that all steps left."""
        self._inside(text, self.state.user, self.state.folder)

    def _inside(self, command: str, user: str, folder: str) -> None:
        home = "/root" if user == "root" else f"/home/{user}"
        env = {**self.passed, **self.state.env, "HOME": home}
        script = f"cd {shlex.quote(folder)} && {{ {command}\n}}"
        chroot = ["chroot", f"--userspec={user}:{user}", str(self.root), "/bin/sh", "-c", script]
        done = subprocess.run(chroot, env=env, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise StepError(f"exit status {done.returncode}: {command}")

    def _copy(self, text: str) -> None:
        options = [part for part in text.split() if part.startswith("--")]
        sources = [part for part in text.split() if not part.startswith("--")]
        if len(sources) != 2 or sources[0] != ".":
            raise StepError(f"COPY {text}: only the whole repository can be copied here")
        target = self.root / sources[1].lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        names = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True).stdout
        tar = ["tar", "--create", "--null", "--files-from=-", "--file=-"]
        packed = subprocess.run(tar, cwd=REPOSITORY, input=names, capture_output=True, check=True).stdout
        subprocess.run(["tar", "--extract", "--no-same-owner", "-C", target], input=packed, check=True)
        for option in options:
            if option.startswith("--chown="):
                self._inside(f"chown -R {option[8:]} {shlex.quote(sources[1])}", user="root", folder="/")


@contextlib.contextmanager
def mounted(root: Path, binds: Sequence[str]) -> Iterator[None]:
    """Mount /proc, /dev, /dev/shm and the paths ``binds`` of this machine in ``root``, and unmount them at the end."""
    done = []
    try:
        for path in ("/proc", "/dev", "/dev/shm", "/etc/resolv.conf", *binds):
            target = root / path.lstrip("/")
            if Path(path).is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()
            subprocess.run(["mount", "--bind", path, str(target)], check=True)
            done.append(target)
        yield
    finally:
        for target in reversed(done):
            subprocess.run(["umount", "--lazy", str(target)], check=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps; return exit status 0, or 1 after printing which one failed."""
    parser = argparse.ArgumentParser(description="Run the steps of Containerfile in a root made by debootstrap.")
    parser.add_argument("root", type=Path)
    parser.add_argument("--file", type=Path, default=REPOSITORY / "Containerfile")
    parser.add_argument("--bind", action="append", default=[], help="path of this machine that the root shows")
    parser.add_argument("--env", action="append", default=[], help="variable of this machine that RUN gets")
    parser.add_argument("--from-step", type=int, default=1, help="do not run the commands of earlier steps again")
    parser.add_argument("--run", help="command to run at the end, as in a container of the image")
    options = parser.parse_args(arguments)
    build = DebootstrapRoot(options.root, {name: os.environ[name] for name in options.env if name in os.environ})
    try:
        steps = parse(options.file.read_text())
        with mounted(options.root, options.bind):
            for number, step in enumerate(steps, 1):
                skipped = number < options.from_step and step.name in ("RUN", "COPY")
                print(f"step {number}/{len(steps)}{' (done before)' if skipped else ''}: {step.name} {step.text}")
                sys.stdout.flush()
                started = time.monotonic()
                if not skipped:
                    build.apply(step)
                    print(f"step {number}/{len(steps)}: done after {time.monotonic() - started:.0f} s", flush=True)
            if options.run:
                build.run_command(options.run)
    except (StepError, OSError, subprocess.CalledProcessError) as failure:
        print(f"container steps: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

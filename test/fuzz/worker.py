"""The process that runs the cases of a campaign: ``python -m fuzz.worker TARGET ENGINE FIRST CASES SEED FOLDER``.

It is a process of its own, so that a crash or a hang ends it and not the campaign. What it does stands in ``FOLDER``:
the case at work in ``current``, how many are done in ``done``, what broke in ``defects.jsonl``.
"""

from __future__ import annotations

import importlib.util
import json
import mmap
import random
import resource
import sys
from dataclasses import asdict
from pathlib import Path

LOOKED_INTO = ("acs_core", "acs_ros", "training", "PIL", "rosbags")
CASE_BYTES = 256  # longest case; what it does not decide comes from a generator that it seeds
ROOM_BYTES = 4 * 2**30  # address space beyond what the imports took: a case that asks for more gets a MemoryError
GUIDED, RANDOM = "guided", "random"


def has_guide() -> bool:
    """Whether atheris is installed."""
    return importlib.util.find_spec("atheris") is not None


class Recorder:
    """Runs cases of one target, and writes down how it went. ``known`` are defects that were met before."""

    def __init__(self, name: str, folder: Path, known: frozenset[str] = frozenset()) -> None:
        from fuzz.target import judge
        from fuzz.targets import find

        self._judge, self._target, self._folder = judge, find(name), folder
        self._met = set(known)
        with (folder / "current").open("w+b") as file:
            file.truncate(16 + CASE_BYTES)
            self._current = mmap.mmap(file.fileno(), 16 + CASE_BYTES)
        self.done = 0

    def run(self, case: bytes) -> None:
        """Run one case. The count and the case are written first, so that they survive a crash."""
        case = case[:CASE_BYTES]
        self._current[:16] = self.done.to_bytes(8, "little") + len(case).to_bytes(8, "little")
        self._current[16 : 16 + len(case)] = case
        defect = self._judge(self._target, case)
        self.done += 1
        if defect is not None and defect.where not in self._met:
            self._met.add(defect.where)
            with (self._folder / "defects.jsonl").open("a") as out:
                out.write(json.dumps(asdict(defect)) + "\n")

    def finish(self) -> None:
        """Say that all cases were run."""
        self._current[:8] = self.done.to_bytes(8, "little")
        (self._folder / "finished").write_text(str(self.done))


def read_current(folder: Path) -> tuple[int, bytes]:
    """How many cases were done, and the one at work."""
    try:
        raw = (folder / "current").read_bytes()
    except OSError:
        return 0, b""
    length = int.from_bytes(raw[8:16], "little")
    return int.from_bytes(raw[:8], "little"), raw[16 : 16 + length]


def random_case(seed: int, number: int) -> bytes:
    """Case ``number`` of a random campaign."""
    return random.Random(f"{seed} {number}").randbytes(16)


def limit_memory() -> None:
    """Let the process take no more than ROOM_BYTES beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM_BYTES,) * 2)


def _run_random(name: str, first: int, cases: int, seed: int, folder: Path) -> None:
    recorder = Recorder(name, folder)
    limit_memory()
    for number in range(first, first + cases):
        recorder.run(random_case(seed, number))
    recorder.finish()


def _run_guided(name: str, first: int, cases: int, seed: int, folder: Path) -> None:
    import atheris

    with atheris.instrument_imports(include=list(LOOKED_INTO), enable_loader_override=False):
        recorder = Recorder(name, folder)
    limit_memory()
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for number in range(64):
        (corpus / f"seed-{number}").write_bytes(random_case(seed, number) * 4)

    def one(case: bytes) -> None:
        recorder.run(case)
        if recorder.done == cases:
            recorder.finish()

    # libFuzzer's own limits stay out of the way: hangs, crashes and memory are watched by the campaign and judge().
    options = [
        f"-runs={cases + 1}",
        f"-seed={seed + first + 1}",
        f"-max_len={CASE_BYTES}",
        "-timeout=3600",
        "-rss_limit_mb=0",
    ]
    atheris.Setup([sys.argv[0], *options, "-verbosity=0", f"-artifact_prefix={folder}/", str(corpus)], one)
    atheris.Fuzz()


def main() -> int:
    """Run the cases that the command line asks for."""
    name, engine, first, cases, seed, folder = sys.argv[1:]
    run = _run_guided if engine == GUIDED else _run_random
    run(name, int(first), int(cases), int(seed), Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())

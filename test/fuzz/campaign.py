"""A campaign: many cases of one target, each process watched, what broke collected."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fuzz.target import ROOT, Defect
from fuzz.worker import read_current

STALL_S = 120.0  # no case done for so long: it hangs
POLL_S = 0.5
MAX_DEATHS = 20  # processes that may end early; then the campaign ends too
PACKAGES = ("atheris", "numpy", "opencv-python-headless", "pillow", "rosbags", "safetensors", "torch", "transformers")
Tell = Callable[[int], None]


@dataclass
class Record:
    """What a campaign did. ``cases`` were run to their end; ``rate`` is in cases per second."""

    target: str
    engine: str
    seed: int
    cases: int = 0
    seconds: float = 0.0
    corpus: int = 0  # inputs that a guided engine kept, because each reached something new
    peak_memory_mb: int = 0
    defects: list[dict[str, str]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Cases per second."""
        return self.cases / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, with the versions of what was tested."""
        return asdict(self) | {"rate": round(self.rate, 1), "seconds": round(self.seconds, 1), "versions": versions()}


def versions() -> dict[str, str]:
    """Of Python and of the libraries that read what comes in."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except ModuleNotFoundError:
            continue
    return found


def run_campaign(name: str, cases: int, seed: int, engine: str, tell: Tell, stall: float = STALL_S) -> Record:
    """Run ``cases`` cases of the target ``name``. A process that crashes or hangs is a defect, and the campaign goes
    on behind the case that did it. ``tell`` hears how many cases are done."""
    record = Record(name, engine, seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="acs-campaign-") as place:
        folder = Path(place)
        for _ in range(MAX_DEATHS):
            left = cases - record.cases
            if left <= 0:
                break
            for file in ("finished", "current"):
                (folder / file).unlink(missing_ok=True)
            ending, memory = _one_process(name, engine, record.cases, left, seed, folder, tell, stall)
            done, case = read_current(folder)
            record.cases += done
            record.peak_memory_mb = max(record.peak_memory_mb, memory)
            if ending:
                record.cases += 1
                record.defects.append(asdict(Defect(ending, "the process ended or hung", case.hex())))
        record.corpus = len(list((folder / "corpus").glob("*"))) if (folder / "corpus").is_dir() else 0
        lines = (folder / "defects.jsonl").read_text().splitlines() if (folder / "defects.jsonl").exists() else []
        known: dict[str, dict[str, str]] = {}
        for defect in map(json.loads, lines):
            known.setdefault(defect["where"], defect)
        record.defects += known.values()
    record.seconds = time.monotonic() - began
    return record


def _one_process(
    name: str, engine: str, first: int, cases: int, seed: int, folder: Path, tell: Tell, stall: float
) -> tuple[str, int]:
    """How the process ended before its cases were done ("" if it did not), and its peak memory in MB."""
    command = [sys.executable, "-m", "fuzz.worker", name, engine, str(first), str(cases), str(seed), str(folder)]
    places = os.pathsep.join([str(ROOT), str(ROOT / "test")])
    environment = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    memory, last, since = 0, -1, time.monotonic()
    with (
        (folder / "log").open("ab") as log,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        ) as process,
    ):
        try:
            while process.poll() is None:
                memory = max(memory, _peak_mb(process.pid))
                done, _ = read_current(folder)
                if done != last:
                    last, since = done, time.monotonic()
                    tell(first + done)
                if (folder / "finished").exists():
                    process.terminate()  # a guided engine may want to go on
                elif time.monotonic() - since > stall:
                    process.kill()
                    process.wait()
                    return f"hang: no case done in {stall:g} s", memory
                time.sleep(POLL_S)
        except BaseException:
            process.kill()  # Ctrl-C: nothing outlives the campaign
            raise
    if (folder / "finished").exists():
        return "", memory
    tail = (folder / "log").read_text(errors="replace").splitlines()[-3:]
    return f"crash: exit status {process.returncode}: {' | '.join(tail)[-200:]}", memory


def _peak_mb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")), 0)

"""How long it takes until a model can answer: files not in the page cache, then in it, each in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acs_bench.errors import BenchError
from acs_core.assets import resolve_model

_CHILD = """
import json, resource, sys, time
start = time.perf_counter()
import numpy, torch
from transformers.utils import logging
logging.set_verbosity_error(); logging.disable_progress_bar()
from acs_core.grounder import Grounder
imported = time.perf_counter()
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
grounder = Grounder.from_pretrained(sys.argv[1], device=sys.argv[2], selector="first-valid")
loaded = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
image = numpy.zeros((480, 640, 3), numpy.uint8)
answers = []
for _ in range(3):
    began = time.perf_counter()
    grounder.ground(image, "key")
    answers.append(time.perf_counter() - began)
weights = sum(p.numel() * p.element_size() for p in grounder.lvlm.hf_model.parameters())
print(json.dumps({
    "import_s": imported - start, "load_s": loaded - imported, "first_answer_s": answers[0],
    "next_answer_s": min(answers[1:]), "added_mb": (peak - base) / 1024, "weights_mb": weights / 2**20,
}))
"""


@dataclass(frozen=True)
class LoadRow:
    """One start: seconds for the imports, for the model, for the first and for a later answer; the host memory that
    loading added at its peak beside the size of the weights, both in megabytes."""

    cache: str
    import_s: float
    load_s: float
    first_answer_s: float
    next_answer_s: float
    added_mb: float
    weights_mb: float

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return vars(self)


def loading_times(model: str, device: str = "auto") -> list[LoadRow]:
    """Loads ``model`` (name, folder or hub id) in two fresh processes, the first time from the disk.

    Raises:
        BenchError: it cannot be loaded.
    """
    folder = Path(resolve_model(model))
    rows = []
    for cache in ("cold", "warm"):
        if cache == "cold" and folder.is_dir():
            _forget(folder)
        child = subprocess.run(
            [sys.executable, "-c", _CHILD, model, device], capture_output=True, text=True, check=False
        )
        if child.returncode:
            raise BenchError(f"{model} could not be loaded: {child.stderr.strip().splitlines()[-1]}")
        rows.append(LoadRow(cache, **json.loads(child.stdout)))
    return rows


def _forget(folder: Path) -> None:
    """Takes the folder's files out of the page cache, which needs no rights."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

"""Time until a model can answer, in fresh processes, with and without its files in the page cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acs_core.artifacts.registry import resolve_model
from acs_core.errors import BenchError

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
    """Times of one start.

    Attributes:
        cache: state of the page cache.
        import_s: time of the imports in seconds.
        load_s: time of loading the model in seconds.
        first_answer_s: time of the first answer in seconds.
        next_answer_s: time of a later answer in seconds.
        added_mb: host memory that loading added at its peak, in MB.
        weights_mb: size of the weights in MB.
    """

    cache: str
    import_s: float
    load_s: float
    first_answer_s: float
    next_answer_s: float
    added_mb: float
    weights_mb: float

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return vars(self)


def loading_times(model: str, device: str = "auto") -> list[LoadRow]:
    """Load ``model`` (name, folder or hub id) in two fresh processes, the first time from the disk.

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
    """Drop the folder's files from the page cache; needs no privileges."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

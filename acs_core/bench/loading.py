"""Time until a model can answer, in fresh processes, with and without its files and the Python packages in the page
cache."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acs_core.artifacts.registry import resolve_model
from acs_core.bench.page_cache import cached_mb, forget
from acs_core.errors import BenchError

_CHILD = """
import json, pathlib, resource, sys, time
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
modules = [vars(m) for m in list(sys.modules.values()) if hasattr(m, "__dict__")]
read = {str(m.get(k) or "") for m in modules for k in ("__file__", "__cached__")}
maps = pathlib.Path("/proc/self/maps")
if maps.exists():
    read |= {line.split(maxsplit=5)[5] for line in maps.read_text().splitlines() if "/" in line}
print(json.dumps({
    "files": sorted(name for name in read if name.startswith("/")),
    "import_s": imported - start, "load_s": loaded - imported, "first_answer_s": answers[0],
    "next_answer_s": min(answers[1:]), "added_mb": (peak - base) / 1024, "weights_mb": weights / 2**20,
}))
"""


@dataclass(frozen=True)
class LoadRow:
    """Times of one start.

    Attributes:
        cache: state of the page cache: "cold" without the files of the packages and of the model, "model cold" without
            those of the model, or "warm".
        import_s: time of the imports in seconds.
        load_s: time of loading the model in seconds.
        first_answer_s: time of the first answer in seconds.
        next_answer_s: time of a later answer in seconds.
        added_mb: host memory that loading added at its peak, in MB.
        weights_mb: size of the weights in MB.
        still_cached_mb: of the files to be dropped before, MB that were still in the page cache, since other processes
            use them; None if the system does not tell.
    """

    cache: str
    import_s: float
    load_s: float
    first_answer_s: float
    next_answer_s: float
    added_mb: float
    weights_mb: float
    still_cached_mb: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return vars(self)


def loading_times(model: str, device: str = "auto") -> list[LoadRow]:
    """Load ``model`` (name, folder or hub id) in three fresh processes, after one that is not measured.

    That one tells which files of packages a start reads. They can be dropped from the page cache only while no running
    process uses them: this one must not have imported torch.

    Raises:
        BenchError: it cannot be loaded.
    """
    folder = Path(resolve_model(model))
    own = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    packages = [Path(name) for name in _start(model, device).pop("files")]
    rows = []
    for cache, dropped in (("model cold", own), ("warm", []), ("cold", own + packages)):
        forget(dropped)
        left = cached_mb(dropped)
        numbers = _start(model, device)
        del numbers["files"]
        rows.append(LoadRow(cache, still_cached_mb=left, **numbers))
    return [rows[2], rows[0], rows[1]]


def _start(model: str, device: str) -> dict[str, Any]:
    child = subprocess.run([sys.executable, "-c", _CHILD, model, device], capture_output=True, text=True, check=False)
    if child.returncode:
        raise BenchError(f"{model} could not be loaded: {child.stderr.strip().splitlines()[-1]}")
    return json.loads(child.stdout)

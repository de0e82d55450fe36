"""On what, and when, something was measured."""

from __future__ import annotations

import datetime
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers


@dataclass(frozen=True)
class Machine:
    """The processor (and GPU) that was used, its threads, the libraries, and the day."""

    processor: str
    cores: int
    threads: int
    gpu: str
    torch_version: str
    transformers_version: str
    date: str

    @classmethod
    def here(cls, device: torch.device) -> Machine:
        """This machine, as far as ``device`` uses it."""
        gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        return cls(
            processor=_processor(),
            cores=os.cpu_count() or 1,
            threads=torch.get_num_threads(),
            gpu=gpu,
            torch_version=torch.__version__,
            transformers_version=transformers.__version__,
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        )

    def describe(self) -> str:
        """One line for people."""
        what = self.gpu or f"{self.processor}, {self.threads} of {self.cores} cores used"
        return f"{what}; torch {self.torch_version}, transformers {self.transformers_version}; {self.date}"

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

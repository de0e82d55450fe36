"""A worker for tests of the cluster, in a module of its own: other processes import it."""

import os
import time
from pathlib import Path

import numpy as np

from training.store import Part


class MakeParts:
    """Leaves its process id in ``folder``, and a note of each part it began."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self):
        (Path(self.folder) / f"worker-{os.getpid()}").touch()
        return self.part

    def part(self, number):
        (Path(self.folder) / f"begun-{number}-{os.getpid()}-{time.monotonic_ns()}").touch()
        time.sleep(0.3)
        nothing = np.zeros((0, 1, 1, 1, 1), np.uint8), np.zeros((0, 1, 1), np.float32), np.zeros((0, 4), np.int32)
        return Part(*nothing, np.zeros((0, 4, 1, 1), np.float32), np.zeros((0, 17)), (number,), {}, ({"of": number},))

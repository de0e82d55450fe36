"""A worker for tests of the cluster, in a module of its own: other processes import it."""

import os
import time
from pathlib import Path


class Squares:
    """Leaves its process id in ``folder``, and a note of each number it began."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def __call__(self):
        (self.folder / f"worker-{os.getpid()}").touch()
        return self.square

    def square(self, number):
        (self.folder / f"begun-{number}-{os.getpid()}-{time.monotonic_ns()}").touch()
        time.sleep(0.3)
        return number * number

"""A worker for tests of the cluster, in a module of its own: other processes import it."""

import os
import signal
import time
from pathlib import Path


class Squares:
    """Leaves a note in ``folder`` of each number it began; the first that begins number 3 is killed."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def __call__(self):
        return self.square

    def square(self, number):
        (self.folder / f"begun-{number}-{os.getpid()}").touch()
        time.sleep(0.3)
        if number == 3 and not (self.folder / "killed").exists():
            (self.folder / "killed").write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return number * number


class Poisoned(Squares):
    """Kills every worker that begins number 2, never ends with number 4, and fails at number 5."""

    def square(self, number):
        (self.folder / f"begun-{number}-{os.getpid()}").touch()
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 4:
            time.sleep(3600)
        if number == 5:
            raise OSError("no room")
        return number * number

"""A worker for tests of the cluster, in a module of its own: other processes import it."""

import os
import signal
import time
from pathlib import Path


class Squares:
    """Leaves a note in ``folder`` of each number it began; the first that begins number 3 is killed. With ``hangs``,
    number 3 never ends."""

    def __init__(self, folder, hangs=False):
        self.folder, self.hangs = Path(folder), hangs

    def __call__(self):
        return self.square

    def square(self, number):
        (self.folder / f"begun-{number}-{os.getpid()}").touch()
        time.sleep(1000 if self.hangs and number == 3 else 0.3)
        if number == 3 and not (self.folder / "killed").exists():
            (self.folder / "killed").write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return number * number

"""Short report of what pip does: how many packages it has, and that it unpacks them."""

from __future__ import annotations

import re
from collections.abc import Callable

Say = Callable[[str], None]
LEAST = 20  # packages: fewer are no reason for lines of their own
SHARES = (0.25, 0.5, 0.75)


class PipProgress:
    """Callable for the output lines of one ``pip install``.

    Args:
        total: number of packages to install.
        say: prints a line that stays; called at most four times, and not at all for fewer than LEAST packages.
        show: shows what is done at the moment, for every line of pip that tells it.
    """

    def __init__(self, total: int, say: Say, show: Say) -> None:
        self._total, self._say, self._show = total, say, show
        self._found = 0
        self._marks = [round(share * total) for share in SHARES] if total >= LEAST else []

    def __call__(self, line: str) -> None:
        """Take one line of pip's output."""
        if named := re.match(r"(?:Collecting|Processing|Requirement already satisfied:) (\S+)", line):
            self._found += 1
            name = named[1].rpartition("/")[2]
            name = name.partition("-")[0] if name.endswith(".whl") else re.split(r"[=<>!~@;]", name)[0]
            self._show(f"{self._found} of {self._total} packages: {name}")
            if self._marks and self._found >= self._marks[0]:
                self._say(f"{self._found} of {self._total} packages are here")
                self._marks = [mark for mark in self._marks if mark > self._found]
        elif line.startswith("Installing collected packages:"):
            count = line.count(",") + 1
            told = f"unpacking {count} packages" + (" (a minute)" if count >= LEAST else "")
            self._show(told)
            if self._total >= LEAST:
                self._say(told)

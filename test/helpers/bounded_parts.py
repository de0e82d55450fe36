"""Runs code in a process of its own, whose memory is limited and measured."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HANG_S = 300  # only ends a process that never would
BACKSTOP_MB = 3000  # of address space beyond the imports: it protects the machine, the test looks at what was used
CHILD = """
import json, os, resource, sys
{setup}
argument = sys.argv[1]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + {room} * 2**20,) * 2)
try:
    said = str({call})
except Exception as error:
    said = f"{{type(error).__name__}}: {{error}}"
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({{"said": said, "grown_mb": grown / 1024}}))
"""


@dataclass(frozen=True)
class BoundedCall:
    """What the call returned or raised, as text, and by how many MB the process grew at most."""

    said: str
    grown_mb: float


def bounded(setup: str, call: str, argument: object) -> BoundedCall:
    """The outcome of the expression ``call``, which may use ``argument``, after the imports in ``setup``."""
    code = CHILD.format(setup=setup, call=call, room=BACKSTOP_MB)
    done = subprocess.run(
        [sys.executable, "-c", code, str(argument)], cwd=ROOT, capture_output=True, text=True, timeout=HANG_S
    )
    assert done.returncode == 0, done.stderr
    found = BoundedCall(**json.loads(done.stdout.splitlines()[-1]))
    assert "MemoryError" not in found.said
    return found

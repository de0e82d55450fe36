"""The grounding node with a model that fails on demand."""

from __future__ import annotations

import sys

from acs_ros.main import main
from acs_stress.faulty import load_faulty

if __name__ == "__main__":
    sys.exit(main(load=load_faulty))

"""Install the packages of one file in requirements/locked, as wheels and with their hashes.

``install_locked.py PYTHON FILE [--optional TEXT]``: PYTHON is that of the environment. With ``--optional`` it is not an
error if no index and no folder offers a version for this Python; TEXT is printed then. A file with another hash always
is an error.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

import locked


def main(arguments: Sequence[str] | None = None) -> int:
    """Run pip and return its exit status, or 0 if an optional package is not offered."""
    parser = argparse.ArgumentParser()
    parser.add_argument("python")
    parser.add_argument("file", help="name of a file in requirements/locked")
    parser.add_argument("--optional", metavar="TEXT")
    options = parser.parse_args(arguments)
    command = [options.python, "-m", "pip", "install", "--disable-pip-version-check"]
    command += [*locked.WHEELS_ONLY, "-r", str(locked.FOLDER / options.file)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    refused = locked.refusal(done.stdout)
    if done.returncode and options.optional and not refused and locked.not_offered(done.stdout):
        print(options.optional, file=sys.stderr)
        return 0
    if done.returncode:  # with --quiet, pip would not say what a constraint has to do with it
        print(refused or done.stdout, end="\n" if refused else "", file=sys.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())

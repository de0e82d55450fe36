"""Runs a command that signals itself at given moments: ``python signal_at.py SIGNAL MOMENTS MODULE[:FUNCTION] ARGS``.

MOMENTS are separated by semicolons, each signals once: ``import NAME``, when a statement is about to import that
module, or ``call FILE:FUNCTION``, when that function of a file whose path ends so is called, on whichever thread. No
clock is involved: the same moment is the same line of code. Without FUNCTION the module's main() is run as a command.
"""

import os
import signal
import sys
import threading
from importlib import import_module


def signal_at(number: int, moments: list[str]) -> None:
    imports = [m.removeprefix("import ") for m in moments if m.startswith("import ")]
    calls = [tuple(m.removeprefix("call ").split(":")) for m in moments if m.startswith("call ")]

    def audit(event: str, arguments: tuple) -> None:
        if event == "import" and arguments[0] in imports:
            imports.remove(arguments[0])
            os.kill(os.getpid(), number)

    def profile(frame, event, argument) -> None:
        if event != "call":
            return
        for call in [c for c in calls if c[1] == frame.f_code.co_qualname and frame.f_code.co_filename.endswith(c[0])]:
            calls.remove(call)
            os.kill(os.getpid(), number)

    sys.addaudithook(audit)
    if calls:
        threading.setprofile(profile)
        sys.setprofile(profile)


if __name__ == "__main__":
    number, moments, target = sys.argv[1:4]
    module, _, name = target.partition(":")
    sys.argv = [name or module, *sys.argv[4:]]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background would be deaf
    signal_at(signal.Signals[number], moments.split(";"))
    if name:
        getattr(import_module(module), name)()
    else:
        import_module("acs_core.entry").run(module, "grounding", stopped=0)

"""What a signal does to a command that is started by acs_core.entry.run."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
from command_parts import console_scripts

LONG_S = 60.0
RUN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from acs_core.entry import run; run('command', 'command')"
DEAF = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
HEARING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
SIGNAL = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"


@pytest.fixture
def command(tmp_path):
    """Runs a module with this text as a command: exit code, stdout, stderr."""

    def run(text: str, before: str = HEARING) -> tuple[int, str, str]:
        (tmp_path / "command.py").write_text(textwrap.dedent(text))
        line = [sys.executable, "-c", before + RUN, str(tmp_path)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=LONG_S)
        return done.returncode, done.stdout, done.stderr

    return run


STOPPED = (130, "", "command: stopped\n")


@pytest.mark.parametrize(("code", "expected"), [("None", 0), ("0", 0), ("3", 3)])
def test_the_exit_code_is_that_of_main(command, code, expected):
    assert command(f"main = lambda: {code}") == (expected, "", "")
    assert command(f"import sys\nmain = lambda: sys.exit({code})") == (expected, "", "")


def test_a_signal_while_the_module_is_imported_ends_the_process(command):
    assert command(f"{SIGNAL}\nprint('on')\nmain = None") == STOPPED
    assert command(SIGNAL.replace("SIGINT", "SIGTERM")) == STOPPED


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_that_main_does_not_handle_is_one_line(command, name):
    assert command(f"def main():\n    {SIGNAL.replace('SIGINT', name)}\n    print('on')") == STOPPED


def test_a_forked_process_can_be_terminated_as_ever(command):
    text = """
        import os

        def main():
            child = os.fork()
            if child == 0:
                os.kill(os.getpid(), 15)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert command(text) == (0, "-15\n", "")


def test_main_may_handle_it(command):
    text = f"""
        def main():
            try:
                {SIGNAL}
            except KeyboardInterrupt:
                print("cleaning up")
                return 7
    """
    assert command(text) == (130, "cleaning up\n", "")  # after a signal no failure is told as one


@pytest.mark.parametrize("error", ["ImportError('half of it')", "SystemExit(1)"])
def test_an_error_that_the_signal_caused_is_not_shown(command, error):
    text = f"""
        def main():
            try:
                {SIGNAL}
            except KeyboardInterrupt:
                raise {error} from None
    """
    assert command(text)[0] == 130
    assert "Traceback" not in command(text)[2]


def test_typer_passes_the_signal_on_as_an_exit_code(command):
    text = f"""
        import sys

        def main():
            try:
                {SIGNAL}
            except KeyboardInterrupt:
                sys.exit(130)
    """
    assert command(text) == STOPPED
    assert command("import sys\nmain = lambda: sys.exit(130)") == (130, "", "")  # no signal came


def test_an_error_without_a_signal_is_shown(command):
    code, _, said = command("def main():\n    raise ImportError('a bug')")
    assert code == 1 and "Traceback" in said and "a bug" in said


def test_a_signal_in_a_finalizer_is_not_lost(command):
    text = f"""
        class Handle:
            def __del__(self):
                {SIGNAL}

        def main():
            Handle()
            print("on", flush=True)
    """
    assert command(text) == STOPPED


def test_the_second_signal_ends_the_process_at_once(command):
    text = f"""
        def main():
            try:
                {SIGNAL}
            finally:
                {SIGNAL}
                print("on", flush=True)
    """
    assert command(text) == STOPPED


def test_what_ignores_ctrl_c_goes_on_ignoring_it(command):
    assert command(f"{SIGNAL}\ndef main():\n    {SIGNAL}\n    print('on')", DEAF) == (0, "on\n", "")


def test_signals_while_python_ends_do_nothing(command):
    assert command(f"import atexit\n\ndef end():\n    {SIGNAL}\n\natexit.register(end)\nmain = lambda: 0") == (
        0,
        "",
        "",
    )


def test_starting_a_command_imports_nothing_that_takes_time(repo):
    """Until run() has the signals, they print a stack trace."""
    heavy = ("numpy", "torch", "typer", "rich", "rclpy", "transformers", "cv2", "argparse")
    started = sorted({script.partition(":")[0] for script in console_scripts()})
    text = f"import sys, {', '.join(started)}; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", text], cwd=repo, capture_output=True, text=True, check=True).stdout
    assert set(heavy) & set(found.split()) == set()


@pytest.mark.parametrize(
    ("main", "expected"),
    [
        ("print('done') or 0", (0, "done\n", "")),
        ("print('done')", (0, "done\n", "")),
        ("print('done') or 2", (2, "done\n", "")),
        ("sys.stdout.close() or 2", (2, "", "")),
    ],
)
def test_a_command_may_end_without_pythons_own_end(tmp_path, main, expected):
    """Its output is flushed, though it is buffered."""
    (tmp_path / "a_command.py").write_text(
        f"import atexit, sys\natexit.register(print, 'atexit')\nmain = lambda: {main}"
    )
    start = "from acs_core.entry import run; run('a_command', 'name', stopped=0, at_once=True)"
    paths = {"PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}"}
    done = subprocess.run([sys.executable, "-c", start], env={**os.environ, **paths}, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == expected


@pytest.mark.parametrize(("main", "said"), [("sys.exit('a text')", "a text"), ("1 / 0", "ZeroDivisionError")])
def test_a_text_or_an_error_is_shown_also_then(tmp_path, main, said):
    (tmp_path / "a_command.py").write_text(f"import sys\nmain = lambda: {main}")
    start = "from acs_core.entry import run; run('a_command', 'name', at_once=True)"
    paths = {"PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}"}
    done = subprocess.run([sys.executable, "-c", start], env={**os.environ, **paths}, capture_output=True, text=True)
    assert done.returncode == 1 and said in done.stderr

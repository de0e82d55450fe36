"""There is one way to print an error: what a file or a message put into it steers no terminal."""

import ast

from command_parts import calls, modules

PRINTER = "acs_core.terminal"  # print_error
WRITER = "acs_core.entry"  # write_line, for signal handlers


def stream(call):
    return next((ast.unparse(word.value) for word in call.keywords if word.arg == "file"), "")


def test_nothing_but_fixed_words_is_printed_to_stderr_directly():
    raw = [
        f"{name}:{call.lineno}"
        for name, tree in modules().items()
        for call in calls(tree, "print")
        if "stderr" in stream(call) and not all(isinstance(word, ast.Constant) for word in call.args)
    ]
    numbers = "acs_ros.stress.client_main"  # says how long it waited
    assert {place.partition(":")[0] for place in raw} == {PRINTER, numbers}
    written = [
        f"{name}:{call.lineno}"
        for name, tree in modules().items()
        for call in calls(tree, "write")
        if "stderr" in ast.unparse(call.func) or ast.unparse(call).startswith("os.write(2")
    ]
    assert [place.partition(":")[0] for place in written] == [WRITER]


def test_consoles_print_no_error_under_the_name_of_a_command():
    second = [
        f"{name}:{call.lineno}"
        for name, tree in modules().items()
        for call in calls(tree, "print")
        for text in [ast.unparse(call.args[0]) if call.args else ""]
        if isinstance(call.func, ast.Attribute) and text.lstrip("f").lstrip("'\"").startswith("acs-")
    ]
    assert second == []


def test_every_console_is_a_plain_one():
    made = {name for name, tree in modules().items() if calls(tree, "Console", "PlainConsole")}
    assert made == {PRINTER}


def test_that_a_command_was_stopped_is_said_in_one_place():
    """acs_core.entry says "NAME: stopped"; a command may add what there is of its work."""
    said = {
        name
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and str(node.value).endswith(": stopped")
    }
    assert said == {WRITER}


def test_signals_are_handled_in_two_places():
    """The command's own handlers, and those of what stops in its own time."""
    handled = {name for name, tree in modules().items() if calls(tree, "signal")}
    workers = {"acs_ros.stress.client_main", "training.world.synth"}  # leave Ctrl-C to the command that started them
    assert handled == {WRITER, "acs_ros.stop_signals"} | workers

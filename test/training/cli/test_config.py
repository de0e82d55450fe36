"""Configurations of the commands: what a YAML file may say, which value wins, runs that are repeated from a file."""

import json
import os
import re
import subprocess
import sys
from dataclasses import MISSING, dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, get_args

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from acs_core.attention import Step
from acs_core.errors import OutputError
from acs_core.option_types import StrictTyper
from acs_core.output_folder import OutputFolder
from acs_core.output_marker import MARKER
from acs_core.selection.regressor_files import INPUT_TRANSFORMS
from training.cli.config import Configuration, as_command, configuration_of, options_of, read_config, recorded
from training.cli.main import COMMANDS
from training.cli.options import AttentionStep, Objects, Size, Transform
from training.data.pairs import SIZES
from training.data.pairs import Objects as PairObjects


class ResultKind(StrEnum):
    ONE = "one"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class EveryKindOptions(Configuration):
    """A field of every type that a configuration may have."""

    command = "every-kind"
    out: Annotated[Path, typer.Option(help="A place.")]
    count: Annotated[int, typer.Option(min=1, max=9)] = 3
    share: Annotated[float, typer.Option(min=0, max=1)] = 0.5
    name: Annotated[str | None, typer.Option()] = None
    limit: Annotated[int | None, typer.Option(min=1)] = None
    kind: Annotated[ResultKind, typer.Option()] = ResultKind.ONE
    kinds: Annotated[tuple[ResultKind, ...], typer.Option()] = (ResultKind.ONE,)
    places: Annotated[tuple[Path, ...], typer.Option()] = ()
    two: Annotated[tuple[Path, Path] | None, typer.Option()] = None
    map_side: Annotated[int, typer.Option()] = 12
    quick: Annotated[bool, typer.Option()] = False


ALL = {
    "out": Path("some/where"), "count": 4, "share": 0.25, "name": "yes", "limit": 7, "kind": ResultKind.OTHER,
    "kinds": (ResultKind.OTHER, ResultKind.ONE), "places": (Path("a b"), Path("c: d")), "two": (Path("x"), Path("y")),
    "map_side": 24, "quick": True,
}  # fmt: skip


def taken(*words):
    """What a command gets that is called with ``words``."""
    found = []

    def every_kind(options: EveryKindOptions) -> None:
        """A command."""
        found.append(options)

    every_kind.__annotations__["options"] = EveryKindOptions
    own = StrictTyper()
    own.command()(as_command(every_kind))
    own.command("other")(lambda: None)
    done = CliRunner().invoke(own, ["every-kind", *map(str, words)], env={"COLUMNS": "1000"})
    return (found[0] if found else None), done


def written(folder, text):
    file = folder / "run.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_what_is_written_is_read_back(tmp_path):
    options = EveryKindOptions(**ALL)
    found, done = taken("--config", written(tmp_path, options.to_yaml()))
    assert done.exit_code == 0, done.output
    assert replace(found, config=None) == options and found.config == tmp_path / "run.yaml"
    assert {type(getattr(found, name)) for name in ("kind", "out", "kinds")} == {ResultKind, type(Path()), tuple}
    plain = EveryKindOptions(out=Path("o"))
    assert replace(taken("--config", written(tmp_path, plain.to_yaml()))[0], config=None) == plain


TEXTS = st.text(st.characters(exclude_categories=()), min_size=1, max_size=20).filter(lambda t: "\0" not in t)


@settings(deadline=None, max_examples=300)
@given(
    TEXTS | st.sampled_from(["null", "1e-3", "0x10", "- a", "~", "#1", "a #b", "true", ".inf", "1_0", "é", "\udc80"]),
    st.floats(0, 1),
)
def test_any_text_and_number_is_read_back(tmp_path_factory, name, share):
    options = EveryKindOptions(out=Path("o"), name=name, share=share)
    file = written(tmp_path_factory.mktemp("any"), options.to_yaml())
    values = read_config(file, EveryKindOptions)
    assert values["name"] == name and values["share"] == share


def test_options_win_over_the_file_and_the_file_over_defaults(tmp_path):
    file = written(tmp_path, "out: file\ncount: 5\nkinds: [other, other]\nmap_side: 3\n")
    found, _ = taken("--count", 6, "--config", file, "--kinds", "one")
    assert (found.out, found.count, found.kinds, found.map_side) == (Path("file"), 6, (ResultKind.ONE,), 3)
    assert (found.share, found.kind, found.quick) == (0.5, ResultKind.ONE, False)
    found, _ = taken("--out", "mine", "--config", file)
    assert (found.out, found.count, found.kinds) == (Path("mine"), 5, (ResultKind.OTHER, ResultKind.OTHER))


def test_a_required_option_may_stand_in_neither():
    _, done = taken("--count", 6)
    assert done.exit_code == 2 and "Missing option '--out'" in done.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cuont: 3", "there is no option 'cuont': did you mean count?"),
        ("map-side: 3", "there is no option 'map-side': did you mean map_side?"),
        ("zzz: 3", "there is no option 'zzz': there are out, count, share"),
        ("config: other.yaml", "there is no option 'config'"),
        ("command: fit", "it is for the command 'fit', not for every-kind"),
        ("count: 3\nshare: 0.1\ncount: 4", "line 3: 'count' stands there twice"),
        ("count: 0", "count must be a whole number from 1 to 9, got 0"),
        ("count: 10", "count must be a whole number from 1 to 9, got 10"),
        ("count: '3'", "count must be a whole number from 1 to 9, got '3'"),
        ("count: 3.0", "count must be a whole number from 1 to 9, got 3.0"),
        ("count: true", "count must be a whole number from 1 to 9, got True"),
        ("count: null", "count must be a whole number from 1 to 9, got None"),
        ("count: [3]", "count must be a whole number from 1 to 9"),
        (f"count: {'9' * 200}", "line 1: a number of 200 digits"),
        (f"map_side: {2**64}", "map_side must be a whole number"),
        ("share: .nan", "share must be a number from 0 to 1, got nan"),
        ("share: -.inf", "share must be a number from 0 to 1, got -inf"),
        ("share: half", "share must be a number from 0 to 1, got 'half'"),
        ("limit: 0", "limit must be a whole number from 1"),
        ("kind: both", "kind must be one of one, other, got 'both'"),
        ("kinds: one", "kinds must be a list or tuple of values, got 'one'"),
        ("kinds: [one, 3]", "kinds[1] must be one of one, other, got 3"),
        ("name: [3]", "name must be text, got"),
        ("out: null", "out must be a path (text or os.PathLike), got None"),
        ('name: ""', "name must have 1 to"),
        ("out: [a]", "out must be a path"),
        ('out: ""', "out must have 1 to"),
        ("two: [a]", "two must hold 2 to 2 values, got 1"),
        ("quick: 1", "quick must be True or False, got 1"),
        ("quick: yes", "quick must be True or False, got 'yes'"),
        ("places: {a: b}", "line 1: a value must be a plain one or a list of them"),
        ("places: [[a]]", "line 1: a list must be the value of a name, and hold plain values"),
        ("[" * 5000, "line 1: a list must be the value of a name"),
        ("- count", "line 1: a list must be the value of a name"),
        ("count", "it must hold names with values"),
        ("count: &a 3", "line 1: anchors (&a) are not read"),
        ("count: *a", "line 1: references (*a) are not read"),
        ("count: !!int 3", "line 1: tags (tag:yaml.org,2002:int) are not read"),
        ("count: ! 3", "line 1: tags (!) are not read"),
        ("places: !!set [a]", "line 1: tags (tag:yaml.org,2002:set) are not read"),
        ("places: &a [a]", "line 1: anchors (&a) are not read"),
        ("&a {count: 3}", "line 1: anchors (&a) are not read"),
        ("!!python/object/apply:os.system [x]", "line 1: tags (tag:yaml.org,2002:python/object/apply:os.system) are"),
        ("name: !!python/name:os.system x", "line 1: tags (tag:yaml.org,2002:python/name:os.system) are not read"),
        ("count: 3\n---\ncount: 4", "line 2: there must be one document"),
        ('name: "x', "it is not valid YAML"),
        ("count: 3\n  share: 1", "it is not valid YAML: mapping values are not allowed here in line 2"),
        (b"\xff\xfe\xff", "it is not valid YAML"),
        (b"name: \x07", "it is not valid YAML"),
        (b"#" * (1 << 21), "it is larger than 1 MiB"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_wrong_file_is_refused_with_file_key_and_reason(tmp_path, text, said):
    found, done = taken("--out", "o", "--config", written(tmp_path, text))
    assert found is None and done.exit_code == 2
    shown = re.sub(r"[\s│╭╮╰╯─]+", " ", done.output)
    assert "Invalid value for '--config': " in shown and "run.yaml" in shown
    assert said in shown, shown


@pytest.mark.parametrize("place", ["none.yaml", ".", "/dev/null"])
def test_what_is_no_file_is_refused(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    found, done = taken("--out", "o", "--config", place)
    assert found is None and done.exit_code == 2 and "it cannot be read" in done.output


def test_a_file_of_values_alone_that_says_nothing_changes_nothing(tmp_path):
    for text in ("", "# nothing\n", "---\n", "limit: null\nname: ~\ntwo:\n"):
        found, _ = taken("--out", "o", "--config", written(tmp_path, text))
        assert replace(found, config=None) == EveryKindOptions(out=Path("o"))


@pytest.mark.parametrize("word", ["1234567", "12e4567", "007", "1.50", "-.inf", "true", "9" * 200])
def test_text_and_paths_without_quotes_keep_what_is_written(tmp_path, word):
    found, done = taken("--config", written(tmp_path, f"out: {word}\nname: {word}\nplaces: [{word}]\n"))
    assert done.exit_code == 0, done.output
    assert (found.out, found.name, found.places) == (Path(word), word, (Path(word),))


def test_a_flag_of_the_file_is_switched_off_on_the_command_line(tmp_path):
    file = written(tmp_path, "out: o\nquick: true\n")
    assert taken("--config", file)[0].quick and not taken("--config", file, "--no-quick")[0].quick


def test_every_flag_of_every_command_can_be_switched_off():
    flags = [
        (configuration_of(function).command, name, info)
        for function in COMMANDS
        for name, (kind, info) in options_of(configuration_of(function)).items()
        if kind is bool
    ]
    assert len(flags) >= 3
    for command, name, info in flags:
        assert all("/--no-" in word for word in info.param_decls or ()), f"{command}: --{name} has no --no-{name}"


def test_the_choices_of_options_are_those_of_the_library():
    assert {str(s) for s in AttentionStep} == set(get_args(Step))
    assert {str(t) for t in Transform} == set(INPUT_TRANSFORMS)
    assert {str(s) for s in Size} == set(SIZES) and {str(o) for o in Objects} == set(get_args(PairObjects))


def test_every_option_of_every_command_is_in_its_run_file():
    for function in COMMANDS:
        configuration = configuration_of(function)
        names = {f.name for f in fields(configuration)} - {"config"}
        assert names == set(options_of(configuration)), "a field without typer.Option is no option"
        needed = {f.name: Path("x") for f in fields(configuration) if f.default is MISSING}
        lines = configuration(**needed).to_yaml().splitlines()
        assert [line.partition(":")[0] for line in lines[2:]] == ["command", *options_of(configuration)]
        assert configuration.__name__.endswith("Options") and configuration.command.replace("-", "_") == (
            function.__name__
        )


def test_a_run_file_of_the_user_in_the_folder_is_noticed_before_the_work(tmp_path):
    options = EveryKindOptions(out=tmp_path)
    folder = OutputFolder(tmp_path / "out", "acs-train every-kind", replaces=[options.run_file])
    with recorded(options, folder):
        pass
    file = tmp_path / "out" / "every-kind.run.yaml"
    assert file.read_text() == options.to_yaml()
    assert "every-kind.run.yaml" in json.loads((tmp_path / "out" / MARKER).read_text())["files"]
    file.write_text(options.to_yaml() + "# mine\n")
    with pytest.raises(OutputError, match="changed since acs wrote it"), recorded(options, folder):
        pytest.fail("the work begins")
    assert file.read_text().endswith("# mine\n")


def test_a_failed_run_leaves_the_run_file_of_the_one_before(tmp_path):
    folder = OutputFolder(tmp_path / "out", "acs-train every-kind")
    with recorded(EveryKindOptions(out=tmp_path, count=1), folder):
        pass
    with pytest.raises(KeyError), recorded(EveryKindOptions(out=tmp_path, count=2), folder):
        raise KeyError
    assert "count: 1\n" in (tmp_path / "out" / "every-kind.run.yaml").read_text()


def test_beside_a_file_of_results_no_file_of_the_user_is_written_over(tmp_path):
    result, options = tmp_path / "table.json", EveryKindOptions(out=tmp_path)
    beside = tmp_path / "table.json.run.yaml"
    beside.write_text("mine")
    with pytest.raises(OutputError, match="acs did not write it"), recorded(options, None, result):
        pytest.fail("the work begins")
    beside.unlink()
    for _ in range(2):
        with recorded(options, None, None, result):
            result.write_text("{}")
        assert beside.read_text() == options.to_yaml()
    beside.write_text(beside.read_text() + "# mine\n")
    told = r"table\.json\.run\.yaml was changed since acs wrote it: name another file, or move that one away"
    with pytest.raises(OutputError, match=told), recorded(options, None, result):
        pytest.fail("the work begins")
    assert beside.read_text() == options.to_yaml() + "# mine\n"
    beside.write_text(options.to_yaml())
    # A changed file that values are taken from is not written over; an unchanged one stays as it is.
    with recorded(replace(options, config=beside), None, result):
        pass
    with (
        pytest.raises(OutputError, match="is read by this command and would be overwritten: name another file"),
        recorded(replace(options, config=beside, count=5), None, result),
    ):
        pytest.fail("the work begins")
    os.mkfifo(tmp_path / "pipe")
    with recorded(options, None, tmp_path / "pipe"), recorded(options, None):
        pass  # nothing is written beside a pipe, or without a result
    assert sorted(f.name for f in tmp_path.iterdir()) == ["pipe", "table.json", "table.json.run.yaml"]


def test_help_of_a_command_names_config_and_imports_no_torch(repo):
    code = "import sys; from training.cli.main import app; sys.argv = ['acs-train', 'fit', '--help']\n"
    code += "try:\n    app()\nexcept SystemExit:\n    print('torch' in sys.modules, 'yaml' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=repo, timeout=300, check=True
    )
    assert "--config" in done.stdout and done.stdout.splitlines()[-1] == "False False"

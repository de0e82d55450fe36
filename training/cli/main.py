"""``acs-train``: data, embedded models, and the files that ACS needs for an LVLM."""

from __future__ import annotations

if __name__ == "__main__":  # first: a signal may come while the modules below are imported
    from acs_core.entry import run

    run("training.cli.main", "acs-train")

import sys
from collections.abc import Callable
from typing import Any

from acs_core.errors import AcsError, OptionError, os_problem
from acs_core.option_types import StrictTyper
from acs_core.terminal import print_error
from training.cli.build import build
from training.cli.config import as_command, configuration_of
from training.cli.console import err
from training.cli.evaluate import ablate, evaluate
from training.cli.figures import architecture, attention
from training.cli.files import analyze, calibrate, check_store, collect, fit
from training.cli.push import push
from training.cli.reading_speed import reading_speed
from training.cli.report import report
from training.cli.tiny import tiny, tiny_eval
from training.cli.world import sprites, synth

COMMANDS: dict[Callable[[Any], None], str] = {  # and an example of each
    synth: "--split val --images 500 --out world/val --preview sheet.png",
    sprites: "--font NotoColorEmoji.ttf --fluent icons.json --out sprites",
    tiny: "--arch internvl --out runs/tiny --threads 2",
    tiny_eval: "--arch qwen2_5_vl --cases 500",
    collect: "--model tiny-internvl --data world/train/instances.json --out store",
    fit: "--store work/train --evaluate work/calibration --out files",
    analyze: "--store work/train --data world/train/instances.json --out files",
    calibrate: "--store work/calibration --out files",
    build: "--model tiny-internvl --coco world --out files",
    push: "--files files --to owner/acs-files",
    evaluate: "--model tiny-internvl --data world/test/instances.json --out results",
    check_store: "--store work/train",
    reading_speed: "--pairs 5000",
    ablate: "--heads files/heads.json --emitting work/val work/test",
    attention: "--model tiny-internvl --picture docs/sample.png --phrase key --out figures",
    architecture: "--tables tables",
    report: "evaluation.json.gz --out report.html --tables tables",
}

app = StrictTyper(
    help="Data, embedded models, and the files that ACS needs for an LVLM.",
    no_args_is_help=True,
)
for _function, _example in COMMANDS.items():
    _name = configuration_of(_function).command
    app.command(_name, epilog=f"Example: acs-train {_name} {_example}")(as_command(_function))


def main() -> None:
    """Entry point. Exit code 2 for wrong usage, 1 for a failure, 130 after Ctrl-C."""
    try:
        app()
    except OptionError as error:
        print_error("acs-train", error)
        sys.exit(2)
    except (AcsError, OSError) as error:
        print_error("acs-train", os_problem(error) if isinstance(error, OSError) else error)
        sys.exit(1)
    except SystemExit as ended:
        if ended.code == 130:  # Ctrl-C, as typer reports it
            err.print("collect, fit, build, evaluate, tiny and tiny-eval go on when run again")
        raise

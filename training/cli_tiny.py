"""``acs-train tiny`` and ``acs-train tiny-eval``: the embedded models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from training.console import bar, err

if TYPE_CHECKING:
    from training.tiny.arch import Arch as TinyArch
    from training.tiny.report import TinyReport

Arch = Annotated[str, typer.Option(help="internvl or qwen2_5_vl.")]
SELECTORS = ("greedy", "first-valid", "acs-free", "acs-learned")


def tiny(
    out: Annotated[Path, typer.Option(help="Folder to write into; made if missing.")],
    arch: Arch = "internvl",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 2,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder of the training pictures; runs may share it. By default in OUT.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that prepare batches; for a GPU, 8.", min=0)] = 0,
    scale: Annotated[float, typer.Option(help="Shortens every phase, for a trial run.", min=0.0001, max=1.0)] = 1.0,
) -> None:
    """Train an embedded model from nothing; run again to go on after a stop. The model lands in OUT/tiny-..."""
    import torch

    from acs_core.lvlm.loading import pick_device
    from training.tiny.train import TinyTrainer

    chosen, picked = _make_arch(arch), str(pick_device(device))
    torch.set_num_threads(threads)
    with bar() as move:
        config = chosen.recipe.shortened(scale)
        trainer = TinyTrainer(out, config, chosen, picked, pictures, workers, move)
        trainer.run()
    typer.echo(f"wrote {trainer.model_folder}")


def tiny_eval(
    arch: Arch = "internvl",
    model: Annotated[str | None, typer.Option(help="Instead of the shipped model of ARCH: a folder or name.")] = None,
    split: Annotated[str, typer.Option(help="test, or shifted: other sprites, sizes, backgrounds, noise.")] = "test",
    cases: Annotated[int, typer.Option(help="Small-object cases.", min=1)] = 2225,
    temperature: Annotated[float, typer.Option(help="Of the ten samples.", min=0.01)] = 1.0,
    work: Annotated[Path, typer.Option(help="Folder for pictures and answers; kept.")] = Path("work/tiny-eval"),
    pictures: Annotated[
        Path | None, typer.Option(help="Only draw up to twenty answered scenes into this folder, no table.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the table as JSON.")] = None,
) -> None:
    """Accuracy of an embedded model on held-out rendered pictures: greedy, the selectors, and the best of ten."""
    from acs_core.assets import resolve_model
    from acs_core.lvlm import load_lvlm
    from acs_core.selection import make_selector
    from training.pairs import load_absent, load_pairs
    from training.tiny.report import draw_scenes, tiny_report, write_report

    name = model or _make_arch(arch).model_name
    if split not in ("test", "shifted"):
        raise typer.BadParameter("choose test or shifted", param_hint="--split")
    if pictures and json_file:
        raise typer.BadParameter("only draws, so there is nothing for --json", param_hint="--pictures")
    if json_file and not json_file.parent.is_dir():
        raise typer.BadParameter(f"the folder {json_file.parent} does not exist", param_hint="--json")
    with bar() as move:
        file = _world(work / split, split, cases, move)
        pairs, absent = load_pairs(file)[:cases], load_absent(file, limit=max(1, cases // 4))
        if pictures:
            shown = pairs[:: max(1, len(pairs) // 20)][:20]
            draw_scenes(resolve_model(name), shown, pictures)
            typer.echo(f"wrote {len(shown)} scenes into {pictures}")
            return
        several = load_pairs(file, multiple=True)[: max(1, cases // 10)]
        lvlm = load_lvlm(resolve_model(name), device="cpu")
        selectors = [make_selector(s, lvlm) for s in _usable(Path(name))]
        folder = work / f"{Path(name).name}-{split}-{len(pairs)}-{temperature}"
        report = tiny_report(lvlm, pairs, absent, several, selectors, folder, temperature, progress=move)
    title = f"{Path(name).name}, split {split}: {len(pairs)} small objects (0.1-1 % of the image), N=10, {temperature=}"
    _print(report, title)
    if json_file:
        write_report(report, json_file)


def _make_arch(name: str) -> TinyArch:
    """The architecture ``name``; an unknown one is wrong usage of ``--arch``."""
    from training.tiny.arch import make_arch

    try:
        return make_arch(name)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--arch") from error


def _usable(model: Path) -> list[str]:
    """The selectors to compare. A folder of the user's is not judged with the files of a shipped model that happens to
    bear its name: what it lacks is left out, and said."""
    usable = list(SELECTORS)
    for selector, file in (("acs-free", "heads.json"), ("acs-learned", "regressor.safetensors")):
        if model.is_dir() and not (model / file).is_file():
            usable.remove(selector)
            err.print(f"without {selector}: {model} has no {file}; acs-train build makes it", style="yellow")
    return usable


def _world(folder: Path, split: str, cases: int, move: Callable[[str, int, int], None]) -> Path:
    """The COCO file of a split with at least ``cases`` small-object cases, rendered where it is missing or old."""
    from training.pairs import load_pairs
    from training.scene import WORLD_VERSION
    from training.synth import write_coco

    file = folder / "instances.json"
    images = max(60, cases // 2)
    while (
        not file.exists()
        or json.loads(file.read_text())["info"].get("version") != WORLD_VERSION
        or len(load_pairs(file)) < cases
    ):
        write_coco(folder, split, images, progress=lambda d, t: move(f"render {split}", d, t))
        images *= 2
    return file


def _print(report: TinyReport, title: str) -> None:
    table = Table(title=title)
    for column in ("method", "samples", "Acc@0.5 %", "mIoU %", "calibration error %"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in report.rows:
        error = "-" if row.calibration_error is None else f"{row.calibration_error:.1f}"
        table.add_row(row.method, f"{row.samples:.1f}", f"{row.accuracy:.1f}", f"{row.miou:.1f}", error)
    console = Console()
    console.print(table)
    console.print(f"unparseable answers: {report.unparseable:.1f} %")
    console.print(f"absent objects refused: {report.refused:.1f} % of {report.absent}")
    console.print(
        f"several objects of a category: recall {report.recall:.1f} %, precision {report.precision:.1f} % "
        f"({report.several} questions)"
    )
    console.print(f"one greedy answer on one CPU thread: {report.answer_ms:.0f} ms (median)")

"""``acs-train evaluate`` and ``acs-train ablate``: the paper's tables, and ablations of the selectors' settings."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from acs_core.artifacts.model_name import check_model_name
from acs_core.types import MAX_SAMPLES, MAX_TEMPERATURE
from training.cli.config import Configuration, recorded
from training.cli.console import bar, err, out_console
from training.cli.data import read_data
from training.cli.options import (
    AUTO,
    DEFAULT_DTYPE,
    DEFAULT_FRAME,
    DEFAULT_QUANTIZATION,
    DEFAULT_STEP,
    Data,
    Device,
    DtypeOption,
    Frame,
    Images,
    Json,
    MapSide,
    MaxImageTokens,
    Phrases,
    QuantizationOption,
    Revision,
    Split,
    SplitOption,
    StepOption,
    TopK,
    TopP,
    say,
    square,
)
from training.settings import ABLATION_HEADS, CURVE, HALF_ABSENT, PAPER, EvaluateConfig

if TYPE_CHECKING:
    from acs_core.evaluation.records import Evaluation
    from acs_core.evaluation.table import Table
    from acs_core.lvlm.base import LVLM
    from acs_core.output_folder import OutputFolder
    from training.evaluation.evaluate import Wanted
MADE = ("evaluation.json.gz", "questions.json", "tables.json", "*.csv", "*.tex", "coco/*.json")
Temperatures = Annotated[
    tuple[float, ...], typer.Option(help="Sampling temperature tau. Repeatable.", min=0.01, max=MAX_TEMPERATURE)
]


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(Configuration):
    """Options of ``acs-train evaluate``."""

    command = "evaluate"
    data: Data
    model: Annotated[
        str, typer.Option(help="Name of an embedded model, a model folder, a hub id, or a folder of `acs-train build`.")
    ]
    images: Images = None
    split: SplitOption = Split.VAL
    phrases: Phrases = None
    calibrated_too: Annotated[
        bool, typer.Option(help="Keep questions about images that a calibration was fitted on; the tables say so.")
    ] = False
    out: Annotated[Path | None, typer.Option(help="Folder for the evaluation file and the tables as CSV.")] = None
    work: Annotated[Path, typer.Option(help="Folder for collections and runs; kept and reused by later runs.")] = Path(
        "work/evaluate"
    )
    collected: Annotated[
        tuple[Path, ...],
        typer.Option(help="Folder with collections of `acs-train collect` to reuse where they fit. Repeatable."),
    ] = ()
    temperature: Temperatures = EvaluateConfig.temperatures
    samples: Annotated[int, typer.Option(help="Responses that a method chooses from.", min=1, max=MAX_SAMPLES)] = (
        EvaluateConfig.samples
    )
    top_p: TopP = EvaluateConfig.top_p
    top_k: TopK = EvaluateConfig.top_k
    curve: Annotated[
        tuple[float, ...],
        typer.Option(
            help="Temperature at which small objects get up to --most samples, for tables 4 and 5. Repeatable.",
            min=0.01,
            max=MAX_TEMPERATURE,
        ),
    ] = EvaluateConfig.curve_temperatures
    most: Annotated[
        int,
        typer.Option(
            help="Responses at a --curve temperature; --samples or less for no curve.", min=1, max=MAX_SAMPLES
        ),
    ] = max(CURVE)
    small: Annotated[int, typer.Option(help="Questions about one small object (0.1-1 %), at most; 0: none.", min=0)] = (
        PAPER["small"]
    )
    several: Annotated[int, typer.Option(help="Questions about several small objects, at most.", min=0)] = PAPER[
        "several small"
    ]
    medium: Annotated[int, typer.Option(help="Questions about one medium object (1-5 %), at most.", min=0)] = PAPER[
        "medium"
    ]
    large: Annotated[int, typer.Option(help="Questions about one large object (above 5 %), at most.", min=0)] = PAPER[
        "large"
    ]
    absent: Annotated[
        int,
        typer.Option(help="Questions about a small object or, every second one, an absent one, at most.", min=0),
    ] = 1000
    second_look: Annotated[
        tuple[str, ...],
        typer.Option(
            help="Selector that also answers about small, and small or absent, objects with a second look, as "
            "acs-fusion; consensus then does too."
        ),
    ] = ()
    without_attention: Annotated[
        bool,
        typer.Option(help="Also choose on even attention with each selector that reads it, and compare both."),
    ] = False
    nonsense: Annotated[
        int,
        typer.Option(
            help="Questions of each kind for a table of scores: an object of the image, an absent one, a made-up word, "
            "nonsense; 0: none.",
            min=0,
        ),
    ] = 0
    files: Annotated[
        Path | None,
        typer.Option(help="Folder with regressor, head file and calibrations to use instead of the model's own."),
    ] = None
    latency: Annotated[
        int, typer.Option(help="Number of answers per method to measure latency on, with one thread.", min=0)
    ] = 0
    seed: Annotated[int, typer.Option(help="Seed of the drawn questions and of the first response.", min=0)] = (
        EvaluateConfig.seed
    )
    step: StepOption = DEFAULT_STEP
    map_side: MapSide = None
    plan: Annotated[bool, typer.Option(help="Only list the required collections and their folders.")] = False
    json: Json = None
    revision: Revision = None
    max_image_tokens: MaxImageTokens = None
    coordinate_frame: Frame = DEFAULT_FRAME
    dtype: DtypeOption = DEFAULT_DTYPE
    quantization: QuantizationOption = DEFAULT_QUANTIZATION
    device: Device = AUTO


def evaluate(options: EvaluateOptions) -> None:
    """Answer with every selector and print the tables of the paper. A stopped run is resumed."""
    check_model_name(options.model)
    # Late: torch takes seconds.
    from acs_core.artifacts.identity import weights_fingerprint
    from acs_core.evaluation.records import CALIBRATED_ON
    from acs_core.output_folder import OutputFolder
    from acs_core.selection.box_votes import Consensus
    from acs_core.types import SamplingConfig
    from training.data.dataset import Problems
    from training.data.formats import locate
    from training.evaluation import evaluate as job
    from training.evaluation.cache import CollectionCache
    from training.evaluation.latency import with_latency
    from training.evaluation.second_look_runs import with_second_looks
    from training.evaluation.unknown_phrases import (
        GROUP,
        choose_questions,
        plan_questions,
        unknown_phrases,
        unknown_phrases_table,
    )
    from training.evaluation.used_images import UsedImages

    o = options
    for name in o.second_look:
        _known(name)
    data = locate(o.data, o.images, o.split.value, o.phrases)
    content, source, notes = read_data(data), data.name, Problems()
    config = EvaluateConfig(
        {"small": o.small, "several small": o.several, "medium": o.medium, "large": o.large, HALF_ABSENT: o.absent},
        tuple(sorted(set(o.temperature))),
        o.samples,
        tuple(n for n in CURVE if n <= max(o.most, o.samples)),
        o.curve if o.most > o.samples else (),
        o.seed,
        square(o.map_side),
        step=o.step.value,
        top_p=o.top_p,
        top_k=o.top_k,
        without_attention=o.without_attention,
    )
    lvlm, built = _open(o)
    scorers = job.scorers_for(lvlm, o.files or built, say)
    config = replace(config, map_size=config.map_size or job.map_size_of(scorers))
    used = UsedImages.of(scorers)
    groups = job.choose_groups(content, config, say, None if o.calibrated_too else used, source, notes)
    for line in notes.lines():
        err.print(f"{data.file.name}: {line}", style="yellow", markup=False)
    facts = {CALIBRATED_ON: used.fact(groups, source), "pictures and annotations": "; ".join(notes.lines())}
    weights = weights_fingerprint(lvlm)
    cache = CollectionCache(o.work / "collections", list(o.collected))
    wanted = job.plan(lvlm, groups, config, cache, source, weights)
    known = None if o.calibrated_too else used
    unknown = choose_questions(content, o.nonsense, o.seed, known, source) if o.nonsense else []
    if o.plan:
        more_wanted = [plan_questions(lvlm, unknown, cache, config, source, weights)] if unknown else []
        _show(wanted, more_wanted)
        return
    read = (data.file, data.images, o.files or built, *o.collected)
    taken = OutputFolder(o.out, o.full_command, inputs=read, replaces=(*MADE, o.run_file)) if o.out else None
    with (
        recorded(o, taken, o.json),
        taken or nullcontext() as folder,
        OutputFolder(o.work, f"{o.full_command} --work", inputs=read),
        bar() as move,
    ):
        found = job.evaluate(
            lvlm, scorers, wanted, o.work, config, f"{o.model} on {source}", source, say, move, weights, facts
        )
        if o.second_look:
            # plain consensus shows what the second look itself gains, without attention
            looking = {*o.second_look, Consensus.name}
            twice = [scorer for scorer in scorers if scorer.selector.name in looking]
            found = with_second_looks(found, lvlm, twice, wanted, cache, o.work, config, source, weights, say, move)
        if o.latency:
            first = found.groups[0]
            asked = {question.key for question in first.questions}
            pairs = [pair for pair in groups[first.name] if pair.key in asked][: o.latency]
            sampling = SamplingConfig(o.samples, config.temperatures[0], o.top_p, o.top_k, seed=o.seed)
            found = with_latency(found, lvlm, scorers, pairs, sampling, partial(move, "time answers"))
        more: tuple[Table, ...] = ()
        if unknown:
            scores = unknown_phrases(lvlm, scorers, unknown, cache, config, source, weights, partial(move, GROUP))
            more = (unknown_phrases_table(scores, config),)
        _tell(found, folder, o.json, more)


def _known(selector: str) -> None:
    from acs_core.errors import SelectorError
    from acs_core.selection.registry import check_name

    try:
        check_name(selector)
    except SelectorError as error:
        raise typer.BadParameter(str(error), param_hint="--second-look") from error


def _open(options: EvaluateOptions) -> tuple[LVLM, Path | None]:
    """Return the loaded model, and the folder of the files if ``model`` names files of `acs-train build`."""
    from acs_core.lvlm import load_lvlm, open_model
    from acs_core.selection.defaults import default_files
    from acs_core.selection.registry import selector_names, spec_of

    o = options
    source = open_model(o.model, revision=o.revision, device=o.device)
    wanted = [name for selector in selector_names() if spec_of(selector).reads for name in default_files(selector)]
    lvlm = load_lvlm(
        source,
        dtype=o.dtype.value,
        quantization=o.quantization.value,
        max_image_tokens=o.max_image_tokens,
        coordinate_frame=o.coordinate_frame.value,
    )
    return lvlm, source.built.folder(wanted) if source.built else None


def _show(wanted: list[Wanted], more: list[Wanted]) -> None:
    for w in (*wanted, *more):
        config = w.job.config
        drawn = "greedy" if config.greedy else f"{config.samples} samples at tau {config.temperature:g}"
        state = "complete" if w.place.complete else "to be collected"
        typer.echo(f"{w.group}: {len(w.job.pairs)} questions, {drawn}, {state}: {w.place.folder}")


def _tell(found: Evaluation, out: OutputFolder | None, json_file: Path | None, more: tuple[Table, ...] = ()) -> None:
    """Print the tables of an evaluation, and ``more``, and write its files."""
    from acs_core.evaluation.average_precision import write_coco_files
    from acs_core.evaluation.storage import save
    from acs_core.evaluation.table import print_tables, to_json
    from acs_core.evaluation.tables import assess, tables_of, write_tables
    from acs_core.output import write_json
    from training.evaluation.evaluate import write_questions

    with out.stage(*MADE) if out else nullcontext() as staged:
        if staged:
            found = save(found, staged / "evaluation.json.gz")
        assessed = assess(found)
        tables: tuple[Table, ...] = (*tables_of(assessed), *more)
        results = 0
        if staged:
            write_tables(tables, staged, latex=True)
            results = write_coco_files(found.title, [(m.group, m.main_runs) for m in assessed.measured], staged)
            write_questions(found, staged / "questions.json")
    print_tables(tables, out_console())
    if out:
        typer.echo(
            f"wrote evaluation.json.gz, questions.json, {len(tables)} tables and {results} files of results for "
            f"pycocotools into {out.path}"
        )
    if json_file:
        write_json(json_file, {"tables": to_json(tables)}, f"acs-train {EvaluateOptions.command}")


@dataclass(frozen=True, kw_only=True)
class AblateOptions(Configuration):
    """Options of ``acs-train ablate``."""

    command = "ablate"
    heads: Annotated[Path, typer.Option(help="The model's head file, for its localization-critical layers.")]
    emitting: Annotated[
        tuple[Path, Path],
        typer.Option(
            help="Two collections of `acs-train collect`: heads are chosen on the first and evaluated on the second.",
            metavar="CHOOSE JUDGE",
        ),
    ]
    consuming: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="The same, collected with --step consuming.", metavar="CHOOSE JUDGE"),
    ] = None
    count: Annotated[tuple[int, ...], typer.Option(help="Heads per coordinate. Repeatable.", min=1)] = ABLATION_HEADS
    json: Json = None


def ablate(options: AblateOptions) -> None:
    """Compare steps (emitting or consuming), layers (critical or all) and numbers of heads by the accuracy of acs-free
    and acs-fusion, and correlate low entropy with IoU, size, position and agreement."""
    from acs_core.artifacts.table_1 import load_named
    from acs_core.evaluation.table import print_tables, to_json
    from acs_core.output import write_json
    from training.collection.store import read_store
    from training.evaluation import ablate as job
    from training.evaluation.entropy_correlates import follows_table
    from training.fitting.artifacts import identity_of

    o = options
    given = {"emitting": o.emitting} | ({"consuming": o.consuming} if o.consuming else {})
    with recorded(o, None, o.json):
        steps = []
        for name, (choose, judge) in given.items():
            chosen_on, judged_on = read_store(choose), read_store(judge)
            for folder, data in ((choose, chosen_on), (judge, judged_on)):
                if (found := data.manifest.get("step", "emitting")) != name:
                    raise typer.BadParameter(f"{folder} holds attention of the {found} step", param_hint=f"--{name}")
            steps.append(job.StepCollections(name, chosen_on, judged_on))
        critical = load_named(o.heads, identity_of(steps[0].chosen_on))
        with bar() as move:
            table = job.ablate(steps, critical, o.count, progress=partial(move, "ablate"))
        tables = table, follows_table(steps, critical)
        print_tables(tables, out_console())
        if o.json:
            write_json(o.json, {"tables": to_json(tables)}, o.full_command)

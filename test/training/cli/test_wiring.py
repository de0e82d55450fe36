"""Every option of a command arrives where the command's job reads it."""

import inspect
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest

from acs_core.attention import Step
from acs_core.selection.regressor_files import INPUT_TRANSFORMS
from acs_core.types import COORDINATE_FRAMES
from training.cli.build import BuildOptions, build
from training.cli.config import options_of
from training.cli.evaluate import EvaluateOptions, evaluate
from training.cli.files import AnalyzeOptions, CollectOptions, FitOptions, analyze, collect, fit
from training.cli.options import (
    AttentionStep,
    CoordinateFrame,
    Dtype,
    LoggerName,
    Objects,
    Quantization,
    Size,
    Split,
    Transform,
)
from training.data.formats import FORMATS, DataSource

COCO, PHRASES = FORMATS[0], Path("phrases.json")
SMALL, OTHER = (SimpleNamespace(key=key, image_id=0, picture="") for key in ("asked", "not asked"))
SCORERS = tuple(
    SimpleNamespace(selector=SimpleNamespace(name=name), calibration=None, second_look=None)
    for name in ("acs-free", "acs-fusion")
)
ANSWERS = SimpleNamespace(groups=(SimpleNamespace(name="small", questions=(SMALL,)),))


class Reached(Exception):
    """Ends a command at its job."""


@dataclass(frozen=True)
class Store:
    """Stands for a collection."""

    folder: Path
    pairs: tuple = ()

    @property
    def manifest(self):
        return {}

    @property
    def maps(self):
        return SimpleNamespace(files=())


def stop(_):
    raise Reached


def returns(value):
    return lambda _: value


def store(arguments):
    return Store(arguments["folder"])


MODELS = {"models_of": returns(("lvlm", "runner"))}
# Of each command: the functions that are replaced, with what they return for their arguments; the last one is the job.
REPLACED = {
    collect: {
        "training.cli.files": {**MODELS, "pairs_of": returns([])},
        "training.collection.collect": {"collect": stop},
    },
    fit: {
        "training.collection.store": {"read_store": store},
        "training.fitting.loggers": {"make_loggers": returns("loggers")},
        "training.fitting.steps": {"fit_step": stop},
    },
    analyze: {
        "training.collection.store": {"read_store": store},
        "training.cli.files": {"pairs_of_store": returns("pairs")},
        "training.fitting.artifacts": {"read_regressor": returns(("regressor", "")), "held_candidates": returns([])},
        "training.fitting.steps": {"analyze_step": stop},
    },
    build: {
        "training.cli.build": {
            **MODELS,
            "sides_of": lambda a: tuple(DataSource(COCO, *a[side], "train", {}) for side in ("train", "calibration")),
            "pairs_of": returns([]),
        },
        "training.fitting.build": {"build": stop},
    },
    evaluate: {
        "training.cli.evaluate": {
            "read_data": returns("data"),
            "_open": returns(("lvlm", None)),
            "_show": stop,
            "_tell": stop,
        },
        "acs_core.artifacts.identity": {"weights_fingerprint": returns("weights")},
        "training.evaluation.evaluate": {
            "choose_groups": returns({"small": [OTHER, SMALL]}),
            "scorers_for": returns(SCORERS),
            "map_size_of": returns((1, 1)),
            "plan": returns("wanted"),
            "evaluate": returns(ANSWERS),
        },
        "training.evaluation.cache": {"CollectionCache": returns("cache")},
        "training.evaluation.latency": {"with_latency": returns(ANSWERS)},
        "training.evaluation.second_look_runs": {"with_second_looks": returns(ANSWERS)},
        "training.evaluation.unknown_phrases": {
            "choose_questions": returns(["asked"]),
            "unknown_phrases": returns("scores"),
            "unknown_phrases_table": returns("table"),
        },
    },
}
MODEL = {
    "model": ("tiny-internvl", "models_of.model"),
    "ray": ("local", {"models_of.ray": "local", "JOB.run": "runner"}),
    "actors": (3, "models_of.actors"),
    "revision": ("abc", "models_of.revision"),
    "max_image_tokens": (500, "models_of.max_image_tokens"),
    "coordinate_frame": (CoordinateFrame.UNIT, {"models_of.coordinate_frame": "0-1"}),
}
# Of each option: a value that is not the default, and the arguments that get it, FUNCTION.ARGUMENT.ATTRIBUTE or INDEX;
# with what they get if it is not the value itself. FUNCTION:2 is the second call.
ROWS = {
    (collect, CollectOptions): MODEL
    | {
        "data": (Path("d/i.json"), {"pairs_of.source.file": Path("d/i.json"), "collect.data": "d/i.json"}),
        "split": (Split.VAL, {"pairs_of.source.split": "val"}),
        "phrases": (PHRASES, {"pairs_of.source.phrases": {"tv": "television"}}),
        "out": (Path("out"), "collect.out"),
        "images": (Path("photos"), "pairs_of.source.images"),
        "size": ((Size.LARGE, Size.SMALL), "pairs_of.sizes"),
        "objects": (Objects.ANY, "pairs_of.objects"),
        "samples": (7, "collect.config.samples"),
        "temperature": (0.25, "collect.config.temperature"),
        "top_p": (0.5, "collect.config.top_p"),
        "top_k": (7, "collect.config.top_k"),
        "ray_retries": (5, "models_of.ray_retries"),
        "ray_timeout": (77.0, "models_of.ray_timeout"),
        "dtype": (Dtype.FLOAT16, "models_of.dtype"),
        "quantization": (Quantization.EIGHT, "models_of.quantization"),
        "limit": (9, "pairs_of.limit"),
        "absent_share": (0.25, "pairs_of.absent_share"),
        "map_side": (11, {"collect.config.map_size": (11, 11)}),
        "step": (AttentionStep.CONSUMING, {"collect.config.step": "consuming"}),
        "seed": (5, "pairs_of.seed collect.config.seed"),
        "device": ("cpu", "models_of.device"),
    },
    (fit, FitOptions): {
        "store": (Path("store"), {"fit_step.data.folder": Path("store")}),
        "out": (Path("out"), {"fit_step.out.parent": Path("out")}),
        "evaluate": ((Path("a"), Path("b")), {"fit_step.evaluate": {"a": Store(Path("a")), "b": Store(Path("b"))}}),
        "work": (Path("kept"), "fit_step.work"),
        "epochs": (7, "fit_step.config.epochs fit_step.progress.args.1"),
        "input": (Transform.CELLS, {"fit_step.config.input_transform": "cells"}),
        "share": (0.4, "fit_step.config.validation_share"),
        "learning_rate": (0.5, "fit_step.config.learning_rate"),
        "weight_decay": (0.5, "fit_step.config.weight_decay"),
        "batch": (8, "fit_step.config.batch"),
        "patience": (3, "fit_step.config.patience"),
        "logger": ((LoggerName.CSV,), {"make_loggers.names": ["csv"], "fit_step.loggers": "loggers"}),
        "logs": (Path("logs"), "make_loggers.folder"),
        "workers": (2, "fit_step.workers"),
        "seed": (5, "fit_step.config.seed"),
        "device": ("cpu", "fit_step.device"),
    },
    (analyze, AnalyzeOptions): {
        "store": (
            Path("store"),
            {name: Store(Path("store")) for name in ("analyze_step.data", "read_regressor.data")},
        ),
        "out": (
            Path("out"),
            {
                "read_regressor.out": Path("out"),
                "held_candidates.out": Path("out"),
                "analyze_step.out.parent": Path("out"),
            },
        ),
        "data": (
            Path("d/i.json"),
            {"pairs_of_store.source.file": Path("d/i.json"), "analyze_step.pairs": "pairs"},
        ),
        "images": (Path("photos"), "pairs_of_store.source.images"),
        "split": (Split.VAL, {"pairs_of_store.source.split": "val"}),
        "phrases": (PHRASES, {"pairs_of_store.source.phrases": {"tv": "television"}}),
        "heads": (4, "analyze_step.config.heads"),
        "high_iou": (0.8, "analyze_step.config.high_iou"),
        "low_iou": (0.2, "analyze_step.config.low_iou"),
        "layers": (5, "analyze_step.config.layers"),
        "all_layers": (True, {"analyze_step.config.restrict": False}),
        "draws": (33, "analyze_step.config.draws"),
    },
    (build, BuildOptions): MODEL
    | {
        "model": ("tiny-internvl", "models_of.model build.model"),
        "out": (Path("out"), "build.out"),
        "coco": (Path("coco"), "sides_of.coco"),
        "train": (Path("t/i.json"), {"pairs_of.source.file": Path("t/i.json"), "build.sources.0": "t/i.json"}),
        "calibration": (Path("c/i.json"), {"pairs_of:2.source.file": Path("c/i.json"), "build.sources.1": "c/i.json"}),
        "train_images": (Path("photos"), "pairs_of.source.images"),
        "calibration_images": (Path("others"), "pairs_of:2.source.images"),
        "phrases": (PHRASES, "sides_of.phrases"),
        "work": (Path("kept"), "build.work"),
        "size": ((Size.LARGE, Size.SMALL), "pairs_of.sizes pairs_of:2.sizes"),
        "objects": (Objects.ANY, "pairs_of.objects pairs_of:2.objects"),
        "limit": (9, "pairs_of.limit"),
        "calibration_limit": (60, "pairs_of:2.limit"),
        "absent_share": (0.25, "pairs_of:2.absent_share"),
        "seed": (
            5,
            "pairs_of.seed pairs_of:2.seed build.config.collect.seed build.config.fit.seed build.config.analysis.seed",
        ),
        "top_p": (0.5, "build.config.collect.top_p"),
        "top_k": (7, "build.config.collect.top_k"),
        "ray_retries": (5, "models_of.ray_retries"),
        "ray_timeout": (77.0, "models_of.ray_timeout"),
        "dtype": (Dtype.FLOAT16, "models_of.dtype"),
        "quantization": (Quantization.EIGHT, "models_of.quantization"),
        "learning_rate": (0.5, "build.config.fit.learning_rate"),
        "weight_decay": (0.5, "build.config.fit.weight_decay"),
        "batch": (8, "build.config.fit.batch"),
        "patience": (3, "build.config.fit.patience"),
        "workers": (2, "build.workers"),
        "epochs": (7, "build.config.fit.epochs"),
        "input": (Transform.CELLS, {"build.config.fit.input_transform": "cells"}),
        "heads": (4, "build.config.analysis.heads"),
        "high_iou": (0.8, "build.config.analysis.high_iou"),
        "low_iou": (0.2, "build.config.analysis.low_iou"),
        "layers": (5, "build.config.analysis.layers"),
        "all_layers": (True, {"build.config.analysis.restrict": False}),
        "map_side": (11, {"build.config.collect.map_size": (11, 11)}),
        "device": ("cpu", "models_of.device build.device"),
    },
    (evaluate, EvaluateOptions): {
        "data": (Path("d/i.json"), {"read_data.source.file": Path("d/i.json"), "evaluate.source": "d/i.json"}),
        "split": (Split.TRAIN, {"read_data.source.split": "train"}),
        "phrases": (PHRASES, {"read_data.source.phrases": {"tv": "television"}}),
        "calibrated_too": (True, {"choose_groups.used": None}),
        "top_p": (0.5, "evaluate.config.top_p with_latency.sampling.top_p"),
        "top_k": (7, "evaluate.config.top_k with_latency.sampling.top_k"),
        "dtype": (Dtype.FLOAT16, "_open.options.dtype"),
        "quantization": (Quantization.EIGHT, "_open.options.quantization"),
        "model": ("tiny-internvl", "_open.options.model"),
        "images": (Path("photos"), "read_data.source.images"),
        "out": (Path("out"), {"_tell.out.path": Path("out")}),
        "work": (
            Path("kept"),
            {
                "CollectionCache.folder": Path("kept/collections"),
                "evaluate.work": Path("kept"),
                "with_second_looks.work": Path("kept"),
            },
        ),
        "collected": ((Path("a"), Path("b")), {"CollectionCache.others": [Path("a"), Path("b")]}),
        "temperature": (
            (0.9, 0.4),
            {"evaluate.config.temperatures": (0.4, 0.9), "with_latency.sampling.temperature": 0.4},
        ),
        "samples": (4, "evaluate.config.samples with_latency.sampling.num_samples"),
        "curve": ((0.4,), "evaluate.config.curve_temperatures"),
        "most": (15, {"evaluate.config.curve": (1, 3, 5, 10, 15)}),
        "small": (11, "choose_groups.config.limits.small"),
        "absent": (14, {"choose_groups.config.limits.small or absent": 14}),
        "several": (12, {"choose_groups.config.limits.several small": 12}),
        "medium": (13, "choose_groups.config.limits.medium"),
        "large": (14, "choose_groups.config.limits.large"),
        "second_look": (("acs-fusion",), {"with_second_looks.scorers": [SCORERS[1]]}),
        "nonsense": (7, "choose_questions.count"),
        "without_attention": (True, "evaluate.config.without_attention"),
        "files": (Path("files"), "scorers_for.built"),
        "latency": (1, {"with_latency.pairs": [SMALL]}),
        "seed": (5, "choose_groups.config.seed evaluate.config.seed with_latency.sampling.seed"),
        "step": (AttentionStep.CONSUMING, {"plan.config.step": "consuming", "evaluate.config.step": "consuming"}),
        "map_side": (11, {"plan.config.map_size": (11, 11), "evaluate.config.map_size": (11, 11)}),
        "plan": (True, {"_show.wanted": "wanted"}),
        "json": (Path("t.json"), "_tell.json_file"),
        "revision": ("abc", "_open.options.revision"),
        "max_image_tokens": (500, "_open.options.max_image_tokens"),
        "coordinate_frame": (CoordinateFrame.UNIT, {"_open.options.coordinate_frame": CoordinateFrame.UNIT}),
        "device": ("cpu", "_open.options.device"),
    },
}
ALONE = {(evaluate, "plan")}  # options that leave away what the others are for: tested without these


@pytest.fixture
def arguments(monkeypatch, tmp_path):
    """Runs a command until its job is called; returns the arguments of the replaced functions, by function."""
    monkeypatch.chdir(tmp_path)
    PHRASES.write_text('{"tv": "television"}')

    def run(command, options):
        found = {}

        def recorder(name, real, answer):
            signature = inspect.signature(real)

            @wraps(real)  # a second run replaces this function again, and reads its signature
            def record(*given, **named):
                bound = signature.bind(*given, **named)
                bound.apply_defaults()
                number = sum(key.split(":")[0] == name for key in found) + 1
                found[name if number == 1 else f"{name}:{number}"] = bound.arguments
                return answer(bound.arguments)

            return record

        for module, functions in REPLACED[command].items():
            for name, answer in functions.items():
                real = getattr(import_module(module), name)
                monkeypatch.setattr(f"{module}.{name}", recorder(name, real, answer))
        with pytest.raises(Reached):
            command(options)
        return found

    return run


def at(found, place):
    """What arrived at FUNCTION.ARGUMENT.ATTRIBUTE or INDEX."""
    for part in place.split("."):
        if isinstance(found, dict):
            found = found[part]
        else:
            found = found[int(part)] if part.isdecimal() else getattr(found, part)
    return found


@pytest.mark.parametrize(("command", "configuration"), ROWS, ids=lambda value: getattr(value, "command", ""))
def test_every_option_arrives(command, configuration, arguments):
    rows = ROWS[command, configuration]
    defaults = {field.name: field.default for field in fields(configuration)}
    assert set(rows) == set(options_of(configuration)), "an option without a row"
    assert not [name for name, (value, _) in rows.items() if value == defaults[name]], "a default, which always arrives"
    alone = {name for name in rows if (command, name) in ALONE}
    needed = {name for name in rows if defaults[name] is MISSING}
    for names in (rows.keys() - alone, *({name} for name in alone)):
        found = arguments(command, configuration(**{name: rows[name][0] for name in names | needed}))
        for name in sorted(names):
            value, places = rows[name]
            places = places if isinstance(places, dict) else dict.fromkeys(places.split(), value)
            for place, wanted in places.items():
                place = place.replace("JOB", command.__name__)
                assert at(found, place) == wanted, f"--{name.replace('_', '-')} at {place}"


@pytest.mark.parametrize(
    ("option", "values"),
    [(CoordinateFrame, COORDINATE_FRAMES), (AttentionStep, get_args(Step)), (Transform, INPUT_TRANSFORMS)],
)
def test_options_have_all_values_of_acs_core(option, values):
    assert set(option) == set(values)

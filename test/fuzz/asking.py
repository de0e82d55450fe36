"""Targets: what the network asks: phrases, queries, goals, parameters."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

from acs_msgs.action import Ground
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image

from acs_core.arguments import clean_phrase, split_text
from acs_core.artifacts.registry import ASSETS
from acs_core.errors import AcsError, PhraseError
from acs_core.lvlm import FAMILIES
from acs_core.lvlm.loading import load_processor
from acs_core.lvlm.prompt import PromptBuilder, localization_prompt
from acs_ros.diagnostics.status import show_queries
from acs_ros.node.action_server import goal_problem
from acs_ros.node.ground_goal import GroundGoal
from acs_ros.node.parameter_table import SPECS
from acs_ros.node.parameters import Settings, change_problem, widen_integers
from acs_ros.node.query_manager import clean_queries
from fuzz.draw import FuzzedData
from fuzz.target import Broken, Target

SETTINGS = Settings(**{spec.name: spec.default for spec in SPECS})  # type: ignore[arg-type]
MODELS = {"tiny-internvl": "internvl", "tiny-qwen2.5-vl": "qwen2_5_vl"}


@cache
def builder(name: str) -> tuple[PromptBuilder, list[int]]:
    """The prompt builder of a shipped model, and its prompt for "key"."""
    made = PromptBuilder.create(load_processor(ASSETS / name, FAMILIES[MODELS[name]]))
    return made, made.build(localization_prompt("key"), [made.image_id])


def prompt(draw: FuzzedData) -> None:
    """Around any phrase the prompt is the same: the same special tokens in the same order, the same text between
    them, and the phrase as it stands in the one stretch that holds it."""
    made, plain = builder(draw.pick(tuple(MODELS)))
    phrase = clean_phrase(draw.text(60))
    ids = made.build(localization_prompt(phrase), [made.image_id])
    ours, theirs = stretches(made, ids), stretches(made, plain)
    if [s for s in ours if isinstance(s, int)] != [s for s in theirs if isinstance(s, int)]:
        raise Broken(f"the phrase {phrase!r} changed the special tokens")
    differing = [a for a, b in zip(ours, theirs, strict=True) if a != b]
    if len(differing) > 1:
        raise Broken(f"the phrase {phrase!r} changed more than the user's text")


def stretches(made: PromptBuilder, ids: list[int]) -> list[int | tuple[int, ...]]:
    """A prompt as its special ids, and the ids between two of them."""
    found: list[int | tuple[int, ...]] = []
    between: list[int] = []
    for i in ids:
        if i in made.special_ids:
            found += [tuple(between), i]
            between = []
        else:
            between.append(i)
    return [*found, tuple(between)]


def queries(draw: FuzzedData) -> None:
    """A text on ~/query, or the phrases of ~/set_queries, become at most ``max_queries`` clean phrases."""
    text = "".join(draw.text() + draw.pick(("", ";", "\n", ";;", ";" * 3000)) for _ in range(draw.integer(0, 12)))
    if draw.chance(20):
        text *= draw.pick((10, 1000))
    asked = clean_queries(split_text(text) if draw.chance(2) else text.split(";"), SETTINGS)
    if len(asked) > SETTINGS.max_queries or len(set(asked)) != len(asked):
        raise Broken(f"{len(asked)} queries")
    for phrase in asked:
        if clean_phrase(phrase) != phrase or len(phrase) > SETTINGS.max_phrase_chars:
            raise Broken(f"the phrase {phrase!r} is not clean")
    show_queries(asked).encode()


def goal(draw: FuzzedData) -> None:
    """A goal of ~/ground is taken, or refused in words."""
    floats = (0.0, 1.0, -1.0, 0.5, float("nan"), float("inf"), 1e308)
    request = Ground.Goal(
        phrase=draw.text().encode("utf-8", "replace").decode(),
        camera=draw.text(8).encode("utf-8", "replace").decode() if draw.chance(3) else "",
        samples=draw.pick((0, 1, 256, 257, 2**32 - 1)),
        deadline=draw.pick(floats),
        min_score=draw.pick(floats),
        multiple=draw.chance(2),
    )
    if draw.chance(3):
        request.image = Image(height=draw.pick((1, 2**32 - 1)), width=draw.integer(0, 4), encoding="rgb8", step=6)
        request.image.data.frombytes(draw.raw(30))
    if draw.chance(3):
        request.compressed_image = CompressedImage(format=draw.pick(("jpeg", "")))
        request.compressed_image.data.frombytes(draw.raw(30))
    frames: Any = SimpleNamespace(parameters=SimpleNamespace(current=SETTINGS))
    log: Any = None
    made = GroundGoal(SimpleNamespace(request=request), frames, log, give_up=lambda *_: None, forget=lambda *_: None)
    problem = goal_problem(made, SETTINGS)
    if len(problem) > 1000:
        raise Broken(f"a refusal of {len(problem)} characters")
    problem.encode()


def parameter(draw: FuzzedData) -> None:
    """Any value for any parameter is taken, or refused in words."""
    name = draw.pick([s.name for s in SPECS] + ["use_sim_time", "nonsense"])
    value = draw.value(0) if draw.chance(2) else draw.pick((b"x", [1, 2], [0.5], ["a"], [True], "a b " * 500, "éé"))
    problem = change_problem({name: value}, draw.chance(2))
    if len(problem) > 1000:
        raise Broken(f"a refusal of {len(problem)} characters")
    problem.encode()
    if type(value) in (int, float, bool, str) and not (type(value) is int and abs(value) >= 2**63):
        (widened,) = widen_integers([Parameter(name, value=value)])
        if widened.value != value and value == value:
            raise Broken(f"{value!r} became {widened.value!r}")


TARGETS = (
    Target("prompt", "phrases in the prompts of both embedded models", prompt, (PhraseError,)),
    Target("queries", "~/query and ~/set_queries", queries, (PhraseError,)),
    Target("goal", "goals of ~/ground", goal, (AcsError,)),
    Target("parameter", "parameters of the node", parameter, ()),
)

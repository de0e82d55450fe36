"""Targets: what a model writes, read by the parser and traced back to the tokens that wrote it."""

from __future__ import annotations

import json
import math
import unicodedata
from functools import cache
from types import SimpleNamespace
from typing import Any

from acs_core.artifacts.registry import ASSETS
from acs_core.generation.candidates import decode_with_tokens, find_candidates, parse_response, says_absent
from acs_core.generation.generate import Generations
from acs_core.geometry import Box
from acs_core.lvlm.base import Prompt, Values
from fuzz.draw import NUMBERS, FuzzedData, change_bytes, change_json
from fuzz.target import Broken, Target

# How the two families answer, and what they have been seen to answer besides.
RESPONSES = (
    '```json\n[\n\t{"bbox_2d": [213, 148, 262, 201], "label": "key"},\n'
    '\t{"bbox_2d": [15, 240, 35, 460], "label": "key"}\n]\n```',
    '[\n  {"bbox_2d": [200, 150, 280, 220], "label": "red mug"}\n]',
    '[{"bbox_2d": [412, 388, 431, 407], "label": "key"}]',
    "<ref>key</ref><box>[[412, 388, 431, 407], [1, 2, 3, 4]]</box>",
    "The key is at (412, 388), (431, 407).",
    '{"x1": 12, "y1": 34, "x2": "56", "y2": 78.5, "label": "a \\"red\\" key"}',
    "There is no key in the image.",
    "[]",
    "The top-left corner is at (412, 388) and the bottom-right corner at (431, 407).",
    '{"bbox_2d": [0.280, 0.500, 0.520, 0.700]}',
    "｛“bbox_2d”：［４１２，３８８，４３１，４０７］，“label”：“钥匙”｝，图中没有钥匙",
    "car[[75, 658, 250, 871], [286, 558, 444, 711]]\ntruck[[440, 208, 502, 255]]",
    '<points x1="32.0" y1="62.8" x2="68.5" y2="62.8" alt="key">key</points>',
    '[{"bbox_3d": [2.88, 0.56, 6.28, 4.45, 1.7, 1.84, 0.75, 0.49, 0.75], "label": "car"}, {"point_2d": [9, 9]}]',
    '<p data-bbox="310 94 658 132">key</p><box>412 388 431 407</box>',
)
STRUCTURED: tuple[list[dict[str, Any]], ...] = (
    [{"bbox_2d": [213, 148, 262, 201], "label": "key"}, {"bbox_2d": [15, 240, 35, 460], "label": "key", "score": 0.9}],
    [{"label": "mug", "bbox_2d": [[1, 2], [3, 4]]}, {"x1": 1, "y1": 2, "x2": 3, "y2": 4}],
)
# Corners by name, full-width signs and tags, in which some models answer.
IN_WORDS = (
    "top-left",
    "bottom-right",
    "左上",
    "右下",
    "（",
    "］",
    "１",
    "，",
    "<points x1=",
    ">",
    "<box>",
    "<ref>",
    "</ref>",
)
PIECES = (
    *("[", "]", "(", ")", "{", "}", '"', "'", ",", " ", "\n", ":", "=", "-", ".", "e9", "NaN", "\\", "```json"),
    *IN_WORDS,
    *('"bbox_3d": [', '"point_2d": [', "没有", "图"),
    *('"bbox_2d": [', "box:", "x1", '"y2": ', '"label": "', "label': '", "key", "1", "20", "-3.5", "1e308", "9" * 300),
)
MAX_BOXES = 64
SIZE = (640, 480)


def response(draw: FuzzedData) -> str:
    """A response: pieces, a real one with changed bytes, or JSON with changed fields."""
    kind = draw.integer(0, 3)
    if kind == 0:
        return "".join(
            draw.pick(PIECES) * draw.pick((1, 1, 1, 1, 1, 1, 1, 1, 2, 50)) for _ in range(draw.integer(0, 40))
        )
    if kind == 1:
        return change_bytes(draw, draw.pick(RESPONSES).encode(), draw.integer(1, 6)).decode("utf-8", "replace")
    if kind == 2:
        data = change_json(draw, json.loads(json.dumps(draw.pick(STRUCTURED))), draw.integer(1, 4))
        try:
            return json.dumps(data, ensure_ascii=draw.chance(2), separators=draw.pick(((",", ":"), (",\n  ", ": "))))
        except (RecursionError, ValueError):  # nested too deep for the writer, or made to hold itself
            return str(draw.pick(NUMBERS))
    return draw.raw(400).decode("utf-8", "replace")


def parser(draw: FuzzedData) -> None:
    """No text makes the parser raise; its boxes have four numbers that stand where it says."""
    text = response(draw)
    boxes = parse_response(text, MAX_BOXES)
    says_absent(text)
    if len(boxes) > MAX_BOXES:
        raise Broken(f"{len(boxes)} boxes where {MAX_BOXES} are allowed")
    for box in boxes:
        if list(box.starts) != sorted(set(box.starts)) or not all(
            unicodedata.normalize("NFKC", text[s]) in "-+.0123456789" for s in box.starts
        ):
            raise Broken(f"starts {box.starts} do not point at four numbers")
        check_box(Box(*box.in_frame((1000.0, 1000.0))).clip(*SIZE), SIZE)


def check_box(box: Box | None, size: tuple[int, int]) -> None:
    """A box that passed the clipping is finite, inside the picture and has an area."""
    if box is None:
        return
    inside = 0 <= box.x1 < box.x2 <= size[0] and 0 <= box.y1 < box.y2 <= size[1]
    if not inside or not all(map(math.isfinite, box.as_tuple())) or box.area <= 0:
        raise Broken(f"{box} is no box in {size}")


class Reader:
    """As much of an LVLM as finding candidates needs: a shipped tokenizer, and the frame of 0-1000."""

    def __init__(self, name: str) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(str(ASSETS / name), trust_remote_code=False)

    def to_pixels(self, prompt: Prompt, values: Values) -> Box:
        """Numbers of 0-1000 as pixels."""
        x1, y1, x2, y2 = values
        sx, sy = prompt.image_size[0] / 1000, prompt.image_size[1] / 1000
        return Box(x1 * sx, y1 * sy, x2 * sx, y2 * sy)


@cache
def reader(name: str) -> Reader:
    """One for each shipped model."""
    return Reader(name)


def candidates(draw: FuzzedData) -> None:
    """Any tokens give candidates whose coordinates were written by tokens of the response, in order."""
    lvlm: Any = reader(draw.pick(("tiny-internvl", "tiny-qwen2.5-vl")))
    if draw.chance(3):
        ids = [draw.integer(0, len(lvlm.tokenizer) - 1) for _ in range(draw.integer(0, 60))]
    else:
        text = response(draw)[:300].encode("utf-8", "replace").decode()
        ids = lvlm.tokenizer.encode(text, add_special_tokens=False)
    text, writers = decode_with_tokens(lvlm.tokenizer, ids)
    if len(text) != len(writers) or writers != sorted(writers) or not all(0 <= w < len(ids) for w in writers):
        raise Broken("a character without the token that wrote it")
    size = draw.pick((SIZE, (16, 1600), (1, 1)))
    prompt: Any = SimpleNamespace(image_size=size, frame_size=(1000.0, 1000.0))
    samples: Any = SimpleNamespace(response_ids=(tuple(ids),), finished=(draw.chance(2),), broken=False)
    found, (told,) = find_candidates(lvlm, prompt, _samples(samples), MAX_BOXES)
    if told.num_boxes != len(found) or bool(told.problem) == bool(found):
        raise Broken("a response with boxes and a problem, or with neither")
    for candidate in found:
        check_box(candidate.box, size)
        tokens = candidate.coordinate_tokens
        if list(tokens) != sorted(tokens) or not all(0 <= t < len(ids) for t in tokens):
            raise Broken(f"coordinate tokens {tokens} of {len(ids)}")


def _samples(found: Any) -> Generations:
    return found  # only the two fields are read


TARGETS = (
    Target(
        "parser",
        "responses of a model: parse_response, says_absent, clipping",
        parser,
        (),
    ),
    Target("candidates", "tokens of a response: decoding with tokens, candidates", candidates, ()),
)

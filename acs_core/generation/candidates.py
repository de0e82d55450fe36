"""Parsing of responses into candidates: boxes, and the tokens that stated their coordinates.

The parser accepts any text, executes nothing, and never raises. It scans the text once, token by token: labels, other
strings, numbers, brackets, words. Four numbers form a box if they are in brackets or follow a box key (``bbox_2d``,
``x1`` ..., ``<box>``), as ``[x1, y1, x2, y2]``, as ``(x1, y1), (x2, y2)`` or as "top-left (x1, y1), bottom-right
(x2, y2)"; where keys name all four (``ymin``, ``xmin``, ...), in any order. Numbers may be quoted, and brackets, digits
and quotation marks may be full-width. A text of four numbers alone is a box, too. Of five numbers one is taken for a
confidence: the first if it is a fraction of 1 and the last is not, else the last. With more, or after a key of points
or of boxes in space (``point_2d``, ``bbox_3d``), it is no box. Numbers inside labels are ignored, and so is everything
else.

What models write, with the source of each example, is in ``test/helpers/answers/recorded.json``.

The text is not tokenised again, which could split it differently. The tokens of the response are decoded one by one,
and each character is attributed to the token that produced it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from acs_core.generation.generate import Generations
from acs_core.generation.verbal_confidence import BoxPlace, stated_confidences
from acs_core.lvlm.base import LVLM, Prompt, Values
from acs_core.lvlm.instruction import PROMPT
from acs_core.types import ABSENT, BROKEN, CUT_OFF, ECHO, EMPTY, OUTSIDE, UNPARSEABLE, Candidate, Response

# One character each, so that positions stay those of the text as written.
_HALF_WIDTH = str.maketrans(
    "０１２３４５６７８９（）［］｛｝【】〔〕，、：；．－−＜＞＝“”„＂‘’＇", '0123456789()[]{}[][],,:;.--<>=""""\'\'\''
)

# Every repetition is possessive or bounded (a label has at most 400 characters), so that matching takes linear time.
_TOKEN = re.compile(
    r"""
    (?P<q>["'])(?:label|name|category|class|object|description)(?P=q)\s{0,20}+:\s{0,20}+
        (?P=q)(?P<label>(?:(?!(?P=q))[^\\\n]|\\.|(?P=q)(?!\s{0,20}+(?:[,}\]]|\Z|\n))){0,400}+)(?P=q)
  | <(?:ref|\|ref\||\|object_ref_start\|)>(?P<ref>[^<>\n]{0,400}+)<(?:/ref|\|/ref\||\|object_ref_end\|)>
  | (?P<tag><points?\b[^<>]*+>?+)
  | (?P<other_key>["'](?:points?|point_2d|coordinates?|keypoints?|polygon|bbox_3d|box_3d)["']\s{0,20}+:)
  | (?P<key><(?:b?box|\|box_start\|)>
      | ["']?\b(?:bbox(?:_2d)?|box(?:_2d)?|bounding_box|x_?1|y_?1|x_?2|y_?2|[xy]_?m(?:in|ax))\b["']?\s{0,20}+[:=])
  | (?P<first_corner>\b(?i:top|upper)[\s-]?(?i:left)\b|左上)
  | (?P<second_corner>\b(?i:bottom|lower)[\s-]?(?i:right)\b|右下)
  | (?P<n>["']?)(?<![A-Za-z0-9_.])
        (?P<number>[-+]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][-+]?+[0-9]++)?+(?![A-Za-z0-9_]))(?P=n)
  | (?P<quote>["'](?=[-+0-9., ]{3,80}+["']))
  | (?P<end_quote>(?<=[0-9])["'](?=[\s,>}\]]))
  | (?P<string>"[^"\n\[\](){}]{0,400}+")
  | (?P<open>[\[(])
  | (?P<close>[\])])
  | (?P<brace>[{}])
  | (?P<gap>[\s,]++)
  | (?P<word>\w++)
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_BARE = re.compile(r"\s*+[0-9.]++(?:[\s,]++[0-9.]++){3}[\s.]*+")  # a response of four numbers and nothing else
_POINT_KEY = re.compile(r"\b([xy])_?([12]|m(?:in|ax))")
_BY_NAME = ("x1", "y1", "x2", "y2")
# Words in front of a bracket that are no label: "is at(1, 2), (3, 4)".
_NO_LABEL = re.compile(
    r"(?:\b(?:at|is|are|in|from|to|and|of|as|by|an?|the|located|(?:b?box(?:es|_2d)?|bbox_2d|bounding|coordinates?|"
    r"positions?|points?|regions?|areas?|locations?))|坐标.*|座標.*|位[置于於].*|[框为為是在于於])$",
    re.IGNORECASE,
)
_MAX_LABEL = 60  # characters of such a label
_MAX_TO_SECOND_CORNER = 120  # characters from "top-left (x1, y1)" to "bottom-right"
_MAX_TO_CORNER = 80  # characters from the name of a corner to its brackets

_NOT_THERE = (
    r"visible|found|present|detect(?:ed|able)?|see|seen|any|instances?|objects?|there|contain(?:s|ed)?|shown?|appear"
)
_ABSENT = re.compile(
    rf"\b(?:no|not|none|cannot|unable|without|(?:ca|is|are|does|do|did|could|was|were)n't)\b[^.\n]{{0,80}}?\b(?:{_NOT_THERE})\b"
    r"|\b(?:there|image|picture|photo|scene)\b[^.\n]{0,40}?\b(?:is|are|contains?|has|shows?)\s+(?:no|not|none)\b",
    re.IGNORECASE,
)
_PICTURE_ZH = "(?:图|圖|画面|畫面|照片|场景|場景)"
_FOUND_ZH = "(?:检测|檢測|发现|發現|找到|看到|看见|识别|識別|见到|出现|出現|显示|顯示|包含|任何|可见|可見)"
_ABSENT_ZH = re.compile(
    rf"{_PICTURE_ZH}[^。\n]{{0,15}}(?:没有|沒有|无|無|未)"
    rf"|(?:没有|沒有|未能?|无法|無法|不)[^。\n]{{0,6}}{_FOUND_ZH}"
    rf"|(?:没有|沒有)[^。\n]{{0,15}}(?:在{_PICTURE_ZH}|物体|物體|目标|目標)"
    r"|不存在|[找看见見]不[到见見]"
)
_REPLACEMENT = "\ufffd"  # output of decoders for incomplete or invalid characters
_LONGEST_CHARACTER = 8  # maximum number of tokens per character; longer sequences are invalid bytes


@dataclass(frozen=True)
class ParsedBox:
    """One box as the model wrote it.

    Attributes:
        values: its four numbers in the order written; as x1, y1, x2, y2 where keys name them.
        starts: index in the text of the first character of each number (sign or digit).
        label: label; "" if none.
        closed: False if the text ends right after the fourth number, which may then be cut off.
        decimal: whether a number was written with a decimal point.
        confidence: confidence in [0, 1] that the response states for the box; None if it states none.
    """

    values: Values
    starts: tuple[int, int, int, int]
    label: str = ""
    closed: bool = True
    decimal: bool = False
    confidence: float | None = None

    def in_frame(self, frame_size: tuple[float, float]) -> Values:
        """Return the values in units of a frame of (width, height) ``frame_size``.

        Values of at most 1, one of them with a decimal point, are taken for shares of the picture, whatever the frame
        of the model.
        """
        if not self.decimal or max(map(abs, self.values)) > 1:
            return self.values
        width, height = frame_size
        x1, y1, x2, y2 = self.values
        return x1 * width, y1 * height, x2 * width, y2 * height


def parse_response(text: str, max_boxes: int = 64) -> list[ParsedBox]:
    """Return the boxes in ``text`` in the order written, at most ``max_boxes``; runs in linear time."""
    plain = text.translate(_HALF_WIDTH)
    reader = _Reader(text, anchored=_BARE.fullmatch(plain) is not None)
    for match in _TOKEN.finditer(plain):
        reader.take(match)
        if len(reader.boxes) >= max_boxes and not reader.reads_numbers:
            break
    boxes = reader.boxes[:max_boxes]
    stated = stated_confidences(plain, [BoxPlace(min(box.starts), max(box.starts)) for box in boxes])
    return [box if c is None else replace(box, confidence=c) for box, c in zip(boxes, stated, strict=True)]


def without_examples(boxes: Sequence[ParsedBox]) -> list[ParsedBox]:
    """Return ``boxes`` without the two example boxes of the prompt (paper appendix D), if both are among them.

    A response that repeats them repeats the prompt and does not answer it.
    """
    if len(boxes) < 2:
        return list(boxes)
    examples = example_boxes()
    repeated = examples <= {box.values for box in boxes}
    return [box for box in boxes if not (repeated and box.values in examples)]


@cache
def example_boxes() -> frozenset[tuple[float, float, float, float]]:
    """Return the numbers of the example boxes of the prompt."""
    return frozenset(box.values for box in parse_response(PROMPT))


def says_absent(text: str) -> bool:
    """Return whether a response without boxes says that the object is not in the image: an empty list, or such words
    in English or Chinese."""
    bare = re.sub(r"```(?:json)?", "", text[:2000].translate(_HALF_WIDTH)).strip().strip(".。").lower()
    if re.sub(r"\s", "", bare) in ("[]", "{}", "[{}]", "null", "none", "[null]", "()", "无", "無", "没有", "沒有"):
        return True
    return "[]" in bare.replace(" ", "") or bool(_ABSENT.search(bare) or _ABSENT_ZH.search(bare))


class _Reader:
    """Parser state: the boxes found so far, and the group of numbers being read."""

    def __init__(self, text: str, anchored: bool) -> None:
        self.boxes: list[ParsedBox] = []
        self._text = text
        self._numbers: list[re.Match[str]] = []  # the group being read
        self._anchored = anchored  # a bracket or a box key opened the group, or the text is one group
        self._keyed = False  # it was a key
        self._half = False  # the group is "(x1, y1)", closed; a bracket with its other half may follow
        self._first: list[re.Match[str]] = []  # that first half, while the second bracket is read
        self._last: list[re.Match[str]] = []  # the numbers of the last box of a group, while `_done`
        self._after = 0  # numbers of the group after those of its box; one is a confidence
        self._done = False  # the group has its box
        self._named = ""  # which coordinate the next number is, "x1" for instance, where a key names it
        self._names: list[str] = []  # those names of the numbers of the group; "" where it has none
        self._other = False  # a key of something that is no box came before
        self._label = ""  # label of the object being read, if it comes before the box
        self._object = 0  # index of the first box of that object
        self._corner = 0, -1  # the corner named last: 1 or 2 (0 for none), and where its name ends
        self._top_left: list[re.Match[str]] = []  # numbers of the first corner, until the second is found
        self._words = -1, -1  # start and end of the words in front of this place

    @property
    def reads_numbers(self) -> bool:
        """Whether numbers that follow could make the last box none."""
        return self._done

    def take(self, match: re.Match[str]) -> None:
        kind = match.lastgroup
        if kind == "number":
            self._number(match)
        elif kind == "gap":
            if "\n" in match[0] or "," in match[0]:
                self._words = -1, -1
            return
        elif kind == "quote":
            if not self._keyed or self._numbers:
                self._reset()
        elif kind == "open":
            self._open(match)
        elif kind == "close":
            self._close(match.end())
        elif kind == "key":
            self._other = False
            named = _POINT_KEY.search(match["key"])
            if not (named and self._anchored and self._numbers):
                self._reset(anchored=True)
                self._keyed = True
            self._named = named[1] + {"min": "1", "max": "2"}.get(named[2], named[2]) if named else ""
        elif kind == "other_key":
            self._reset()
            self._other = True
        elif kind in ("first_corner", "second_corner"):
            self._reset()
            self._corner = 1 if kind == "first_corner" else 2, match.end()
            if kind == "first_corner":
                self._top_left = []
        elif kind == "label":
            self._name(self._text[slice(*match.span("label"))])
        elif kind == "ref":
            self._reset()
            self._label, self._object = self._text[slice(*match.span("ref"))].strip(), len(self.boxes)
        elif kind == "brace":
            self._reset()
            self._other = False
            self._label, self._object = "", len(self.boxes)
        elif kind == "word":
            self._reset()
            start, end = self._words
            follows = end >= 0 and self._text[end : match.start()].isspace()
            self._words = start if follows else match.start(), match.end()
            return
        else:  # strings, tags and signs between numbers break a group
            self._reset()
        self._words = -1, -1

    def _number(self, match: re.Match[str]) -> None:
        if self._half:  # "(x1, y1) 3": without a second bracket it is no box
            self._reset()
        if not self._anchored or self._other:
            return
        if self._done:
            self._after += 1
            if self._after == 1 and self._score_first(match):
                self.boxes.pop()
                self._add([*self._last[1:], match], match.end() < len(self._text))
            if self._after == 2:  # a box in space or a polygon
                self.boxes.pop()
            return
        self._numbers.append(match)
        self._names.append(self._named)
        self._named = ""
        if len(self._numbers) == 4:
            if sorted(self._names) == sorted(_BY_NAME):  # "ymin", "xmin", "ymax", "xmax", in any order
                self._numbers = [self._numbers[self._names.index(name)] for name in _BY_NAME]
            self._add(self._numbers, match.end() < len(self._text))
            self._last, self._numbers, self._done = self._numbers, [], True

    def _score_first(self, fifth: re.Match[str]) -> bool:
        """Whether ``fifth`` and the last three numbers of the box before it are the box, and its first is a confidence
        in front of it, as in files of Pascal VOC results."""
        first, *others = (number["number"] for number in self._last)
        return "." in first and 0 <= float(first) <= 1 < min(float(fifth["number"]), max(map(float, others)))

    def _open(self, match: re.Match[str]) -> None:
        first = self._numbers if self._half else []
        start, end = self._words
        if end == match.start() and not self._keyed and not self._corner[0]:
            words = self._text[start:end]  # "car[[1, 2, 3, 4]]": its label
            if len(words) <= _MAX_LABEL and not _NO_LABEL.search(words):
                self._label, self._object = words, len(self.boxes)
        self._reset(anchored=True)
        self._first = first

    def _close(self, end: int) -> None:
        numbers, first, pair = self._numbers, self._first, len(self._numbers) == 2 and not self._half
        self._reset()
        if not pair:
            return
        corner, named = self._corner
        near = numbers[0].start() - named <= _MAX_TO_CORNER
        self._corner = 0, -1
        # "(x1, y1), (x2, y2)" is known to be a box only now: "(x, y) [x1, y1, x2, y2]" is a point and a box.
        if first:
            self._add(first + numbers, closed=True)
        elif corner == 1 and near:
            self._top_left = numbers
        elif corner == 2 and near and self._top_left:
            if named - self._top_left[1].end() <= _MAX_TO_SECOND_CORNER:
                self._add(self._top_left + numbers, closed=True)
            self._top_left = []
            return
        self._numbers, self._half = ([], False) if first else (numbers, True)

    def _add(self, numbers: Sequence[re.Match[str]], closed: bool) -> None:
        a, b, c, d = (float(number["number"]) for number in numbers)
        i, j, k, m = (number.start("number") for number in numbers)
        decimal = any("." in number["number"] for number in numbers)
        self.boxes.append(ParsedBox((a, b, c, d), (i, j, k, m), self._label, closed, decimal))

    def _name(self, label: str) -> None:
        self._reset()
        self._label = label
        for i in range(self._object, len(self.boxes)):
            if not self.boxes[i].label:
                self.boxes[i] = replace(self.boxes[i], label=label)
        self._object = len(self.boxes)

    def _reset(self, anchored: bool = False) -> None:
        self._numbers, self._first, self._after, self._names, self._named = [], [], 0, [], ""
        self._anchored, self._keyed, self._half, self._done = anchored, False, False, False


def find_candidates(
    lvlm: LVLM, prompt: Prompt, samples: Generations, max_boxes: int = 64
) -> tuple[tuple[Candidate, ...], tuple[Response, ...]]:
    """Return the candidates of all responses, and a summary of each response.

    A box is valid if it parses and has an area after clipping to the image. The two example boxes of the prompt are no
    answer.

    Args:
        lvlm: the model that generated the responses.
        prompt: the prompt they answer.
        samples: the responses; no boxes are read if they are broken.
        max_boxes: maximum number of boxes read per response.

    Returns:
        The valid boxes of all responses, in order, and one :class:`Response` per response.
    """
    candidates: list[Candidate] = []
    responses: list[Response] = []
    known: dict[tuple[int, ...], str] = {}
    for index, (ids, finished) in enumerate(zip(samples.response_ids, samples.finished, strict=True)):
        text, writers = decode_with_tokens(lvlm.tokenizer, ids, known)
        stated = [box for box in parse_response(text, max_boxes) if box.closed or finished]
        parsed = without_examples(stated)
        valid = [] if samples.broken else _valid(lvlm, prompt, parsed, writers, index)
        candidates += valid
        problem = ECHO if stated and not parsed else _problem(text, parsed, finished)
        problem = BROKEN if samples.broken else "" if valid else problem
        responses.append(Response(text, len(valid), finished, problem))
    return tuple(candidates), tuple(responses)


def _valid(
    lvlm: LVLM, prompt: Prompt, parsed: Sequence[ParsedBox], writers: Sequence[int], response: int
) -> list[Candidate]:
    valid: list[Candidate] = []
    for found in parsed:
        box = lvlm.to_pixels(prompt, found.in_frame(prompt.frame_size)).clip(*prompt.image_size)
        if box is not None:
            x1, y1, x2, y2 = (writers[start] for start in found.starts)
            valid.append(Candidate(box, found.label, response, len(valid), (x1, y1, x2, y2), stated=found.confidence))
    return valid


def _problem(text: str, parsed: Sequence[ParsedBox], finished: bool) -> str:
    if parsed:
        return OUTSIDE
    if not finished:
        return CUT_OFF
    if not text.strip():
        return EMPTY
    return ABSENT if says_absent(text) else UNPARSEABLE


def decode_with_tokens(
    tokenizer: Any, ids: Sequence[int], known: dict[tuple[int, ...], str] | None = None
) -> tuple[str, list[int]]:
    """Decode a response and attribute each character to a token.

    Args:
        tokenizer: a tokenizer of transformers.
        ids: token ids of the response.
        known: cache of the texts of short token sequences, shared between responses; updated.

    Returns:
        The text without special tokens and, for each character, the index of the token that produced it (the first one
        for a character that spans several).
    """
    known = {} if known is None else known

    def decode(start: int, stop: int) -> str:
        run = tuple(ids[start:stop])
        if run not in known:
            options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
            known[run] = tokenizer.decode(list(run), **options)
        return known[run]

    text: list[str] = []
    writers: list[int] = []
    # Each step decodes the tokens from `begin` on together with those of the step before (from `window`), since a
    # decoder may treat the first token specially. Incomplete characters stay pending, from the token `pending` on.
    window = begin = taken = 0
    pending: int | None = None
    for i in range(len(ids)):
        fresh = decode(window, i + 1)[len(decode(window, begin)) :]
        complete = not fresh.endswith(_REPLACEMENT) or i + 1 == len(ids) or i + 1 - begin >= _LONGEST_CHARACTER
        sure = (fresh if complete else fresh.rstrip(_REPLACEMENT))[taken:]
        text.append(sure)
        writers += [pending if k == 0 and pending is not None else i for k in range(len(sure))]
        if complete:
            window, begin, taken, pending = begin, i + 1, 0, None
        else:
            taken += len(sure)
            pending = i if sure or pending is None else pending
    return "".join(text), writers

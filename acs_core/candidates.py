"""From responses to candidates: valid boxes, each with the tokens that stated its coordinates.

The text is not tokenised again, which could cut it elsewhere. The response's own tokens are decoded one by one, and
each character remembers the token that wrote it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from acs_core.lvlm.base import LVLM, Prompt
from acs_core.parsing import ParsedBox, parse_response, says_absent
from acs_core.sampling import Samples
from acs_core.types import Candidate, Response

# Values of Response.problem.
ABSENT = "the model says the object is not there"
EMPTY = "the response is empty"
UNPARSEABLE = "no box could be read from the response"
CUT_OFF = "the response was cut off before its first box was complete"
OUTSIDE = "every box lies outside the image or has no area"

_REPLACEMENT = "\ufffd"  # what decoders give for bytes that are not (yet) a character
_LONGEST_CHARACTER = 8  # tokens that can be needed for one character; beyond that the bytes are garbage


def find_candidates(
    lvlm: LVLM, prompt: Prompt, samples: Samples, max_boxes: int = 64
) -> tuple[tuple[Candidate, ...], tuple[Response, ...]]:
    """All valid boxes of all responses, in order, and what became of each response.

    A box is valid if it parses and has area left after clipping to the image. ``max_boxes`` are read per response.
    """
    candidates: list[Candidate] = []
    responses: list[Response] = []
    known: dict[tuple[int, ...], str] = {}
    for index, (ids, finished) in enumerate(zip(samples.response_ids, samples.finished, strict=True)):
        text, writers = decode_with_tokens(lvlm.tokenizer, ids, known)
        parsed = [box for box in parse_response(text, max_boxes) if box.closed or finished]
        valid = _valid(lvlm, prompt, parsed, writers, index)
        candidates += valid
        problem = "" if valid else _problem(text, parsed, finished)
        responses.append(Response(text, len(valid), finished, problem))
    return tuple(candidates), tuple(responses)


def _valid(
    lvlm: LVLM, prompt: Prompt, parsed: Sequence[ParsedBox], writers: Sequence[int], response: int
) -> list[Candidate]:
    valid: list[Candidate] = []
    for found in parsed:
        box = lvlm.to_pixels(prompt, found.values).clip(*prompt.image_size)
        if box is not None:
            x1, y1, x2, y2 = (writers[start] for start in found.starts)
            valid.append(Candidate(box, found.label, response, len(valid), (x1, y1, x2, y2)))
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
    """The text of a response without special tokens, and for each of its characters the index of the token that
    wrote it (the first one, for a character spread over several). ``known`` keeps the texts of short runs of tokens:
    other responses have the same ones."""
    known = {} if known is None else known

    def decode(start: int, stop: int) -> str:
        run = tuple(ids[start:stop])
        if run not in known:
            options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
            known[run] = tokenizer.decode(list(run), **options)
        return known[run]

    text: list[str] = []
    writers: list[int] = []
    # Each step decodes the tokens from `begin` on, behind those of the step before (from `window`), since a decoder may
    # treat the first token apart. Bytes that are no character yet stay pending, from the token `pending` on.
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

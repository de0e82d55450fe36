"""End of a response at its first box: where one object is asked for, what a model writes after it is not needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from acs_core.generation.candidates import decode_with_tokens, example_boxes, parse_response
from acs_core.lvlm.base import LVLM, Prompt

_OPEN, _CLOSE = "{｛", "}｝"
_ENDS = frozenset("])}>" + "］）｝】〕＞")  # one of them follows the last number of a complete box


class FirstBoxComplete:
    """Test of unfinished responses to the prompts of a call: whether they hold a box inside the image and all of it.

    A box in braces is complete with the closing one, so that its label is read; another with the closing bracket. A box
    that is an example of the prompt does not count, since it takes the second one to know that a response repeats the
    prompt. Nor does a box that is labelled as something else than the phrase: one with the right label may follow.

    Args:
        lvlm: the model that writes the responses.
        names_other: called with a label and the phrase; True if the label is of something else. None to take every
            label.
    """

    def __init__(self, lvlm: LVLM, names_other: Callable[[str, str], bool] | None = None) -> None:
        self._lvlm, self._names_other = lvlm, names_other
        self._known: dict[tuple[int, ...], str] = {}
        self._examples = example_boxes()
        self._may_end: dict[int, bool] = {}
        self._asked: dict[tuple[int, tuple[int, ...]], bool] = {}  # responses that were asked about, by their prompt

    def __call__(self, prompt: Prompt, ids: Sequence[int]) -> bool:
        """Return whether the response with the token ids ``ids`` to ``prompt`` may end after them."""
        newest = ids[-1]
        if newest not in self._may_end:
            self._may_end[newest] = not _ENDS.isdisjoint(self._lvlm.tokenizer.decode([newest]))
        if not self._may_end[newest]:
            return False
        asked = id(prompt), tuple(ids)
        if asked not in self._asked:
            self._asked[asked] = self._is_complete(prompt, ids)
        return self._asked[asked]

    def _is_complete(self, prompt: Prompt, ids: Sequence[int]) -> bool:
        text, _ = decode_with_tokens(self._lvlm.tokenizer, ids, self._known)
        for found in parse_response(text):
            box = self._lvlm.to_pixels(prompt, found.in_frame(prompt.frame_size)).clip(*prompt.image_size)
            if box is None:
                continue
            first, last = min(found.starts), max(found.starts)
            if found.values in self._examples or not _is_closed(text[:first], text[last:]):
                return False
            if self._names_other is None or found.label == prompt.phrase:
                return True
            if not self._names_other(found.label, prompt.phrase):
                return True
        return False


def _is_closed(before: str, after: str) -> bool:
    """Return whether a box is complete, given the text before its first number and from its last number on."""
    depth = sum(before.count(c) for c in _OPEN) - sum(before.count(c) for c in _CLOSE)
    if depth <= 0:
        return not _ENDS.isdisjoint(after)
    within = depth
    for character in after:
        within += (character in _OPEN) - (character in _CLOSE)
        if within < depth:
            return True
    return False

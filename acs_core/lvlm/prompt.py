"""From a phrase to token ids: the prompt of paper appendix D inside the model's own chat template.

The phrase is data. It must not become a special token (``<|im_end|>``, ``<IMG_CONTEXT>``) nor end the user's turn.
So the chat template is rendered with a placeholder in place of the user's text, the rendering is cut at its special
tokens, and each stretch of text between two of them is tokenised, the user's text included, by a copy of the
tokenizer that has no added tokens at all. For a harmless phrase the ids are those of the ordinary way.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from acs_core.errors import ModelError, PhraseError

PROMPT = """\
Detect all instances of {object_name} in the image:

Your task is to detect any {object_name} objects that are visible in the image.

For each detected object, provide:
The bounding box coordinates [x1, y1, x2, y2]

Output format (as a JSON array):
[
  {"bbox_2d": [x1, y1, x2, y2], "label": "{object_name}"},
  {"bbox_2d": [x1, y1, x2, y2], "label": "{object_name}"}
]

Important: Focus on any {object_name} that might be present in the image,
especially those that are still visible and NOT masked out.

Example output:
[
  {"bbox_2d": [200, 150, 280, 220], "label": "{object_name}"},
  {"bbox_2d": [350, 180, 420, 270], "label": "{object_name}"}
]"""

_PLACEHOLDER = "acs-user-text-goes-here"


def localization_prompt(phrase: str) -> str:
    """The instruction of paper appendix D with ``object_name`` replaced by the phrase, as it stands."""
    return PROMPT.replace("{object_name}", phrase)


@dataclass(frozen=True)
class PromptBuilder:
    """Turns user text into prompt ids for one tokenizer and chat template; made once per model by :meth:`create`.

    ``parts`` is the rendered template: an id for an added token, a string for the text between two of them.
    ``special_ids`` must never come out of text.
    """

    plain: Tokenizer
    parts: tuple[int | str, ...]
    image_id: int
    special_ids: frozenset[int]

    @classmethod
    def create(cls, processor: Any) -> PromptBuilder:
        """Raises ModelError when the processor has no fast tokenizer or no usable chat template."""
        tokenizer = processor.tokenizer
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise ModelError("the model has no fast tokenizer (tokenizer.json): use a folder that has one")
        if not processor.chat_template:
            raise ModelError("the model has no chat template: add its chat_template.jinja to the folder")
        content = [{"type": "image"}, {"type": "text", "text": _PLACEHOLDER}]
        rendered = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        added: dict[str, int] = {token.content: token_id for token_id, token in tokenizer.added_tokens_decoder.items()}
        # Longest first, so that a token that begins like another one is not cut short.
        pattern = "|".join(re.escape(text) for text in sorted(added, key=len, reverse=True))
        pieces = re.split(f"({pattern})", rendered) if pattern else [rendered]
        parts = tuple(added.get(piece, piece) for piece in pieces if piece)
        image_id = tokenizer.convert_tokens_to_ids(processor.image_token)
        texts = [p for p in parts if isinstance(p, str)]
        if parts.count(image_id) != 1 or sum(t.count(_PLACEHOLDER) for t in texts) != 1:
            raise ModelError(
                "the model's chat template does not place one image and the user's text once each; got "
                f"{rendered!r}: use the template that came with the model"
            )
        special = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
        return cls(_without_added_tokens(tokenizer.backend_tokenizer), parts, image_id, frozenset(special | {image_id}))

    def build(self, user_text: str, image_ids: list[int]) -> list[int]:
        """Prompt ids with ``image_ids`` (start token, image tokens, end token) in the image's place.

        Raises:
            PhraseError: the text cannot be written without special tokens in this tokenizer.
        """
        ids: list[int] = []
        for part in self.parts:
            if part == self.image_id:
                ids += image_ids
            elif isinstance(part, int):
                ids.append(part)
            else:
                text_ids = self.plain.encode(part.replace(_PLACEHOLDER, user_text), add_special_tokens=False).ids
                if not self.special_ids.isdisjoint(text_ids):
                    raise PhraseError("the phrase contains a special token of the model: leave such markup out of it")
                ids += text_ids
        return ids


def _without_added_tokens(tokenizer: Tokenizer) -> Tokenizer:
    spec = json.loads(tokenizer.to_str())
    vocabulary = spec["model"].get("vocab")
    if isinstance(vocabulary, dict):  # which may list the special tokens too, so that a word could match them whole
        specials = {token["content"] for token in spec["added_tokens"] if token["special"]}
        spec["model"]["vocab"] = {text: i for text, i in vocabulary.items() if text not in specials}
    return Tokenizer.from_str(json.dumps(spec | {"added_tokens": [], "truncation": None, "padding": None}))

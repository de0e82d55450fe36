"""Prompt ids: the instruction of paper appendix D inside the model's chat template.

The phrase is data: it must neither become a special token (``<|im_end|>``, ``<IMG_CONTEXT>``) nor end the user's turn.
The chat template is therefore rendered with a placeholder for the user's text and split at its special tokens; each
part in between, with the user's text inserted, is tokenised by a copy of the tokenizer without any added tokens. For
ordinary phrases the ids equal those of the standard method.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from acs_core.errors import ModelError, PhraseError
from acs_core.lvlm.instruction import PROMPT

_PLACEHOLDER = "acs-user-text-goes-here"


def localization_prompt(phrase: str) -> str:
    """Return the instruction of paper appendix D with the phrase inserted unchanged."""
    return PROMPT.replace("{object_name}", phrase)


@dataclass(frozen=True)
class PromptBuilder:
    """Builder of prompt ids for one tokenizer and chat template; see :meth:`create`.

    Attributes:
        plain: the tokenizer without added tokens.
        parts: the rendered template: the id of each added token, and the text between them.
        image_id: id of the image token.
        special_ids: ids that must never result from text.
    """

    plain: Tokenizer
    parts: tuple[int | str, ...]
    image_id: int
    special_ids: frozenset[int]

    @classmethod
    def create(cls, processor: Any) -> PromptBuilder:
        """Create the builder of a processor.

        Raises:
            ModelError: the processor has no fast tokenizer or no usable chat template.
        """
        tokenizer = processor.tokenizer
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise ModelError("the model has no fast tokenizer (tokenizer.json): use a folder that has one")
        if not processor.chat_template:
            raise ModelError("the model has no chat template: add its chat_template.jinja to the folder")
        content = [{"type": "image"}, {"type": "text", "text": _PLACEHOLDER}]
        rendered = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        added: dict[str, int] = {token.content: token_id for token_id, token in tokenizer.added_tokens_decoder.items()}
        # Longest first, so that a token that is a prefix of another one does not match in its place.
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
        """Return the ids of a prompt.

        Args:
            user_text: the instruction with the phrase.
            image_ids: start token, image tokens and end token, which replace the image placeholder.

        Raises:
            PhraseError: the text cannot be tokenised without special tokens.
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
    if isinstance(vocabulary, dict):  # may contain the special tokens too, which text could then match
        specials = {token["content"] for token in spec["added_tokens"] if token["special"]}
        spec["model"]["vocab"] = {text: i for text, i in vocabulary.items() if text not in specials}
    return Tokenizer.from_str(json.dumps(spec | {"added_tokens": [], "truncation": None, "padding": None}))

"""The two families' processors without their video half, which needs torchvision.

Why: in transformers 5.23 ``AutoProcessor`` cannot load ``InternVLProcessor`` or ``Qwen2_5_VLProcessor`` where
torchvision is missing, because both take a video processor and every video processor imports torchvision. We
ask about pictures only. The twins below drop that argument and always use the PIL image backend, so that a
machine with torchvision and one without see the same pixels. They bear the names of their parents, so that a
folder they save names the real class and ``AutoProcessor`` reads it where torchvision is installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from transformers import AutoImageProcessor


class InternVLProcessor(transformers.InternVLProcessor):
    """``transformers.InternVLProcessor`` for pictures only."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        image_seq_length: int = 256,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            image_processor, tokenizer, None, image_seq_length=image_seq_length, chat_template=chat_template, **kwargs
        )


class Qwen2_5_VLProcessor(transformers.Qwen2_5_VLProcessor):
    """``transformers.Qwen2_5_VLProcessor`` for pictures only."""

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(image_processor, tokenizer, None, chat_template=chat_template, **kwargs)


PROCESSORS: dict[str, Any] = {"internvl": InternVLProcessor, "qwen2_5_vl": Qwen2_5_VLProcessor}


def load_processor(folder: str | Path, family: str, revision: str | None = None) -> Any:
    """The processor saved in a model folder or hub id; ``family`` is the ``model_type`` of its config.

    Raises:
        OSError, ValueError: files are missing or broken; :func:`acs_core.lvlm.load_lvlm` turns them into a ModelError.
    """
    options = {"trust_remote_code": False, **({"revision": revision} if revision else {})}
    processor = PROCESSORS[family].from_pretrained(str(folder), **options)
    # Asked for by itself: as an option of the whole processor, "backend" would reach the tokenizer too.
    processor.image_processor = AutoImageProcessor.from_pretrained(str(folder), backend="pil", **options)
    return processor

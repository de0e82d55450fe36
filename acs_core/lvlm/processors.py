"""Loading of a model's processor: tokenizer, image processor and chat template, from the files that people have.

The image processor's class is that of the family. Files name classes of the transformers release that wrote them:
``Qwen2_5_VLImageProcessor`` existed in one release only, the names that end in ``Fast`` are those of torchvision.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer

from acs_core.errors import ModelError
from acs_core.lvlm.base import Family
from acs_core.lvlm.checks import check_pixel_scale
from acs_core.plain_text import shorten

_BACKEND = re.compile(r"(?:Fast|Pil)$")


def load_processor(folder: str | Path, family: Family, revision: str | None = None) -> Any:
    """Load the processor of a model folder or hub id, always with the PIL image backend.

    With that backend the pixels do not depend on whether torchvision is installed.

    Raises:
        OSError, ValueError: files are missing or damaged; :func:`acs_core.lvlm.load_lvlm` turns them into a ModelError.
        ModelError: the image processor is that of another family, or would divide pixels by zero or return NaN.
    """
    options = {"trust_remote_code": False, **({"revision": revision} if revision else {})}
    image_processor = _image_processor(str(folder), family, options)
    check_pixel_scale(image_processor)
    tokenizer = AutoTokenizer.from_pretrained(str(folder), **options)
    values, unused = family.processor_class.get_processor_dict(str(folder), **options)
    unused.pop("trust_remote_code", None)
    unused.pop("revision", None)
    return family.processor_class.from_args_and_dict([image_processor, tokenizer], values, **unused)


def _image_processor(folder: str, family: Family, options: dict[str, Any]) -> Any:
    made = family.image_processor_class
    if made is None:
        return AutoImageProcessor.from_pretrained(folder, backend="pil", **options)
    values, _ = made.get_image_processor_dict(folder, **options)
    given = values.pop("image_processor_type", None)
    own = _BACKEND.sub("", made.__name__)
    if given is not None and _BACKEND.sub("", str(given)) not in (own, *family.former_processors):
        raise ModelError(
            f"image_processor_type is {shorten(given)}, but models of the family {family.name} have {own}: get "
            "preprocessor_config.json or processor_config.json again"
        )
    return made.from_dict(values)

"""The message of a goal of ~/ground, from the arguments of a client."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
from acs_msgs.action import Ground
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest

from acs_core.errors import ImageError
from acs_core.geometry import Box
from acs_core.plain_text import shorten
from acs_ros.client.pending_calls import OnStage
from acs_ros.conversions.detections import region_to_message
from acs_ros.conversions.images import fill_image

ImageSource: TypeAlias = np.ndarray | Image | CompressedImage | str | Path


def make_goal(
    phrase: str,
    image: ImageSource | None,
    *,
    region: Box | RegionOfInterest | None = None,
    camera: str = "",
    multiple: bool = False,
    samples: int = 0,
    deadline: float = 0.0,
    min_score: float | None = None,
    on_stage: OnStage | None = None,
) -> tuple[Ground.Goal, OnStage | None]:
    """The goal with these options, see :meth:`GroundingClient.ground_async`; and ``on_stage`` as it is.

    Raises:
        ImageError: the image is empty or no image, or the region has no area.
        OSError: the file cannot be read.
        TypeError: the image or the region is of another type.
    """
    goal = Ground.Goal(
        phrase=phrase,
        camera=camera,
        multiple=multiple,
        samples=samples,
        deadline=float(deadline),
        min_score=-1.0 if min_score is None else float(min_score),
        region=region_to_message(region),
    )
    if isinstance(image, Image):
        goal.image = image
    elif isinstance(image, CompressedImage):
        goal.compressed_image = image
    elif isinstance(image, np.ndarray):
        goal.image = fill_image(Image(), image)
    elif isinstance(image, str | Path):
        path = Path(image)
        goal.compressed_image = CompressedImage(format=path.suffix.lstrip(".").lower())
        if str(image) and not path.is_dir():
            goal.compressed_image.data.frombytes(path.read_bytes())
    elif image is not None:
        raise TypeError(
            f"image must be an array, an image message, or the path of a file; it is of type {type(image).__name__}"
        )
    # A goal without an image asks about the next frame of the camera: another picture than the one that was meant.
    if image is not None and not goal.image.data and not goal.compressed_image.data:
        named = f" ({shorten(str(image))})" if isinstance(image, str | Path) else ""
        raise ImageError(f"the image is empty{named}")
    return goal, on_stage

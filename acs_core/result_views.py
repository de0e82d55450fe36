"""Views of a grounding result, for people and for other packages: arrays, one line of text, a picture, a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from acs_core.arguments import path

if TYPE_CHECKING:
    import PIL.Image

    from acs_core.image import ImageInput
    from acs_core.types import Candidate, Detection, GroundingResult, Response, ScoreKind

    class Fields:
        """The fields of a result that are read here."""

        phrase: str
        image_size: tuple[int, int]
        detections: tuple[Detection, ...]
        candidates: tuple[Candidate, ...]
        responses: tuple[Response, ...]
        selector: str
        score_kind: ScoreKind
        model: str
        seed: int
        reason: str
        image: np.ndarray | None

else:
    Fields = object

SAVED_AS = (".png", ".jpg", ".jpeg", ".webp", ".json")  # endings of :meth:`ResultViews.save`
NO_SCORE = "none"  # ScoreKind.NONE, whose module imports this one


class ResultViews(Fields):
    """Methods of :class:`acs_core.types.GroundingResult`. Those that draw and convert import what they need late."""

    def _whole(self) -> GroundingResult:
        return cast("GroundingResult", self)

    @property
    def boxes(self) -> np.ndarray:
        """Boxes of the detections, x1 y1 x2 y2 in pixels: (N, 4) float64, N = 0 for an abstention."""
        return np.array([tuple(d.box) for d in self.detections], dtype=np.float64).reshape(-1, 4)

    @property
    def scores(self) -> np.ndarray:
        """Scores of the detections: (N,) float64 in [0, 1]; see ``score_kind``."""
        return np.array([d.score for d in self.detections], dtype=np.float64)

    def __len__(self) -> int:
        return len(self.detections)

    def __bool__(self) -> bool:
        return True  # also without detections: ``if result`` would otherwise hide the reason

    def __repr__(self) -> str:
        found = f"no detection: {self.reason or 'no reason given'}"
        best = max(self.detections, key=lambda d: d.score, default=None)
        if best is not None:
            score = "" if self.score_kind == NO_SCORE else f", score {best.score:.2f}"
            more = f", and {len(self.detections) - 1} more" if len(self.detections) > 1 else ""
            found = f"{best.box!r}{score} ({self.score_kind.value.replace('_', ' ')}){more}"
        made = f"{len(self.candidates)} candidates in {len(self.responses)} responses"
        return f"GroundingResult({self.phrase!r}: {found}; {made}, {self.model}, {self.selector}, seed {self.seed})"

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values, without ``attention`` and ``image``; boxes are [x1, y1, x2, y2].

        :func:`acs_core.serialize.result_from_dict` makes a result of them again.
        """
        from acs_core.serialize import result_to_dict

        return result_to_dict(self._whole())

    def to_supervision(self) -> Any:
        """Return the detections as ``supervision.Detections``, for its annotators, trackers and metrics.

        ``class_id`` is 0, ``data["class_name"]`` is the phrase, and ``confidence`` is the score, or None where the
        selector has no score.

        Raises:
            ImportError: the package supervision, which acs does not install, is not there.
        """
        try:
            from supervision import Detections
        except ImportError as error:
            raise ImportError("to_supervision() needs the package supervision: pip install supervision") from error
        count = len(self.detections)
        return Detections(
            xyxy=self.boxes.astype(np.float32),
            confidence=None if self.score_kind == NO_SCORE else self.scores.astype(np.float32),
            class_id=np.zeros(count, dtype=int),
            data={"class_name": np.array([self.phrase] * count, dtype=str)},
        )

    def plot(self, image: ImageInput | None = None) -> PIL.Image.Image:
        """Return the image with all boxes drawn, as :func:`acs_core.overlay.draw_result` does.

        Args:
            image: a path, a PIL image, or an array (H, W, 3) uint8 RGB (:func:`acs_core.image.as_image`); by default
                the image that was asked about.

        Raises:
            ImageError: the image cannot be used.
            ValueError: the result has no image and none is given, or it has another size.
        """
        from PIL import Image

        from acs_core.image import as_image
        from acs_core.overlay import draw_result

        pixels = self.image if image is None else as_image(image)
        if pixels is None:
            raise ValueError("the result has no image (keep_image=False, or read from a file): give it, plot(image)")
        if (pixels.shape[1], pixels.shape[0]) != self.image_size:
            found, asked = (f"{w} x {h}" for w, h in ((pixels.shape[1], pixels.shape[0]), self.image_size))
            raise ValueError(f"image has {found} pixels, and the result is about one of {asked}")
        return Image.fromarray(draw_result(pixels, self._whole()))

    def save(self, file: str | os.PathLike[str], image: ImageInput | None = None) -> Path:
        """Write :meth:`plot` to a picture (.png, .jpg, .webp) or :meth:`to_dict` to a .json file; return its path.

        Args:
            file: the file; its folder exists.
            image: as for :meth:`plot`.

        Raises:
            OutputError: the folder does not exist, or there is a file that acs did not write; that one is kept.
            OSError: it cannot be written.
            ImageError: the image cannot be used.
            ValueError: its ending is another one, or there is no image to draw on.
        """
        from acs_core.output import check_target, write_json, write_picture

        target = path("file", file)
        if target.suffix.lower() not in SAVED_AS:
            raise ValueError(f"file must end in one of {', '.join(SAVED_AS)}, got {target}")
        check_target(target)
        if target.suffix.lower() == ".json":
            write_json(target, self.to_dict(), "acs-ground")
        else:
            write_picture(target, np.asarray(self.plot(image)), "acs-ground")
        return target

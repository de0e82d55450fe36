"""Images that the calibrations of an evaluation's selectors were fitted on: nothing is judged on them unless asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from acs_core.selection.scorer import Scorer
from training.data.pairs import Pair


@dataclass(frozen=True)
class UsedImages:
    """Images that calibrations were fitted on.

    Attributes:
        ids: image ids by the name of their annotations.
        pictures: digests of the images' files (:attr:`training.data.pairs.Pair.picture`).
        unknown: selectors whose calibration does not name its images.
    """

    ids: Mapping[str, frozenset[int]]
    pictures: frozenset[str]
    unknown: tuple[str, ...] = ()

    @classmethod
    def of(cls, scorers: Iterable[Scorer]) -> UsedImages:
        """Return the images of all calibrations of ``scorers``."""
        ids: dict[str, frozenset[int]] = {}
        pictures: set[str] = set()
        unknown: dict[str, None] = {}
        for scorer in scorers:
            for curve in (scorer.calibration, scorer.second_look):
                if curve is not None and curve.images is None:
                    unknown.setdefault(scorer.selector.name)
                elif curve is not None and curve.images is not None:
                    ids[curve.images.data] = ids.get(curve.images.data, frozenset()) | frozenset(curve.images.ids)
                    pictures |= set(curve.images.pictures)
        return cls(ids, frozenset(pictures), tuple(unknown))

    def holds(self, pair: Pair, source: str) -> bool:
        """Whether the image of ``pair``, of the annotations named ``source``, is one of them: the same id in the same
        annotations, or the same file."""
        return pair.image_id in self.ids.get(source, frozenset()) or pair.picture in self.pictures

    def fact(self, groups: Mapping[str, Sequence[Pair]], source: str) -> str:
        """Return what the tables say about them."""
        asked = [pair for pairs in groups.values() for pair in pairs]
        used = sum(self.holds(pair, source) for pair in asked)
        said = []
        if used:
            said.append(
                f"{used} of {len(asked)} questions are about images that a calibration was fitted on: scores look "
                "better calibrated than they are"
            )
        if self.unknown:
            said.append(f"not known for {', '.join(self.unknown)}, whose calibration files do not name them")
        return "; ".join(said)

"""The selector that trusts the model's own certainty about the numbers it writes (baseline of section 5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from acs_core.attention import AttentionNeeds, Evidence
from acs_core.types import Candidate, ScoreKind

DECIMALS = 3  # of a nat; responses that begin alike differ beyond by arithmetic, and collections keep four


@dataclass(frozen=True)
class TokenEntropy:
    """Prefers the lowest sum of vocabulary entropies over the four coordinate tokens.

    A coordinate's token is its first, as for attention (appendix A): a model that writes "240" digit by digit decides
    there where the object is, and a number of more digits does not count as less certain. The entropy is that of the
    whole vocabulary, before temperature, top-p and top-k.
    """

    name: str = "token-entropy"
    greedy_decoding: bool = False
    needs: AttentionNeeds = field(default_factory=lambda: AttentionNeeds(token_entropy=True))
    score_kind: ScoreKind = ScoreKind.RANK_RELATIVE
    feature: str = ""

    def qualities(self, candidates: Sequence[Candidate], evidence: Evidence, image_size: tuple[int, int]) -> np.ndarray:
        """(C,) in (0, 1]: 1 / (1 + H) with the sum H in nats.

        Raises:
            ValueError: the evidence holds no token entropies.
        """
        if evidence.token_entropy is None:
            raise ValueError("token-entropy needs the entropies of the coordinate tokens, which were not kept")
        return 1.0 / (1.0 + np.round(evidence.token_entropy.sum(axis=1), DECIMALS))  # (C, 4) -> (C,)

    def confidences(
        self, candidates: Sequence[Candidate], evidence: Evidence, qualities: np.ndarray
    ) -> np.ndarray | None:
        """None: it is a baseline for the choice alone."""
        return None

import numpy as np
import pytest

from acs_core.attention import Evidence
from acs_core.geometry import Box
from acs_core.selection import TokenEntropy
from acs_core.types import Candidate


def evidence(token_entropy):
    values = None if token_entropy is None else np.array(token_entropy, dtype=float).reshape(-1, 4)
    return Evidence(np.zeros((0, 4, 1, 1), np.float32), None, (1, 1), values)


def qualities(token_entropy):
    candidates = [Candidate(Box(0, 0, 5, 5), "key", i, 0, (1, 3, 5, 7)) for i in range(len(token_entropy))]
    return TokenEntropy().qualities(candidates, evidence(token_entropy), (9, 9))


@pytest.mark.parametrize(
    ("token_entropy", "expected"),
    [
        ([], []),
        ([[0, 0, 0, 0]], [1.0]),
        ([[0.5, 0.5, 1, 1], [0, 0, 1, 0]], [0.25, 0.5]),
        # what differs by less than a thousandth of a nat in all is a tie
        ([[1, 0, 0, 0.00004], [1, 0, 0, 0]], [0.5, 0.5]),
    ],
)
def test_the_lowest_sum_is_the_best(token_entropy, expected):
    assert qualities(token_entropy).tolist() == expected


def test_it_asks_for_token_entropies_and_says_so_when_they_are_missing():
    assert TokenEntropy().needs.token_entropy
    with pytest.raises(ValueError, match="entropies of the coordinate tokens"):
        TokenEntropy().qualities([Candidate(Box(0, 0, 5, 5), "key", 0, 0, (1, 3, 5, 7))], evidence(None), (9, 9))

import errno

import pytest

from acs_core.oserrors import os_problem

FULL = ". Free some space, or write to another disk, and run the same command again"


@pytest.mark.parametrize(
    ("error", "where", "said"),
    [
        (OSError(errno.EACCES, "Permission denied", "a.json"), "b", "a.json: Permission denied"),
        (OSError(errno.EACCES, "Permission denied"), "b", "b: Permission denied"),
        (OSError(errno.EACCES, "Permission denied"), "", "Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device", "a.json"), "", "a.json: No space left on device" + FULL),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "out", "out: Disk quota exceeded" + FULL),
        (OSError("no numbers at all"), "out", "out: no numbers at all"),
    ],
)
def test_what_is_said(error, where, said):
    assert os_problem(error, where) == said

import errno
from types import SimpleNamespace

import pytest

from acs_core.errors import os_problem

FULL = ". What was there before stays. Free some space, or write to another disk, and run the same command again"


@pytest.mark.parametrize(
    ("error", "where", "said"),
    [
        (OSError(errno.EACCES, "Permission denied", "a.json"), "b", "a.json: Permission denied"),
        (OSError(errno.EACCES, "Permission denied"), "b", "b: Permission denied"),
        (OSError(errno.EACCES, "Permission denied"), "", "Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device", "no/a"), "", "no/a: No space left on device" + FULL),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "", "Disk quota exceeded" + FULL),
        (OSError("no numbers at all"), "out", "out: no numbers at all"),
    ],
)
def test_what_is_said(error, where, said):
    assert os_problem(error, where) == said


@pytest.mark.parametrize("name", ["", "a.json"])
def test_a_full_disk_is_told_with_what_the_folder_has_left(name, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: {tmp_path: SimpleNamespace(free=1_234_567)}[folder])
    error = OSError(errno.ENOSPC, "No space left on device")
    said = os_problem(error, tmp_path / name)
    assert said == f"{tmp_path / name}: No space left on device ({tmp_path} has 1.2 MB free)" + FULL

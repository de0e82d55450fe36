"""Files that the user names: whole or not at all, and never over a file of the user's own."""

import errno
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from acs_core.errors import OutputError
from acs_core.output import (
    check_distinct,
    check_target,
    replaced,
    sealed_text,
    write_bytes,
    write_json,
    write_picture,
    write_text,
    written_by,
)

PIXELS = np.zeros((4, 6, 3), np.uint8)


def test_a_block_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(RuntimeError), replaced(file) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_an_error_names_the_file_that_was_to_be_written(tmp_path):
    file = tmp_path / "a.txt"
    with pytest.raises(OSError) as caught, replaced(file):
        raise OSError(errno.ENOSPC, "No space left on device")  # as write() raises it: without a name
    assert caught.value.filename == str(file)
    assert list(tmp_path.iterdir()) == []


def test_links_are_followed_and_modes_kept(tmp_path):
    real = tmp_path / "real.txt"
    real.write_text("old")
    real.chmod(0o640)
    link = tmp_path / "link.txt"
    link.symlink_to(real)
    write_text(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_new_file_has_the_mode_that_the_umask_gives(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_device_is_written_to_and_not_replaced(tmp_path):
    link = tmp_path / "null"
    link.symlink_to("/dev/null")
    write_bytes(link, b"gone")
    assert stat.S_ISCHR(link.stat().st_mode)
    assert link.is_symlink()


def test_a_folder_is_not_replaced(tmp_path):
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path, "")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.jpeg", "a.webp"])
def test_a_picture_says_who_wrote_it(name, tmp_path):
    file = tmp_path / name
    write_picture(file, PIXELS, "acs-ground")
    assert written_by(file) == "acs-ground"
    check_target(file)


def test_a_json_file_says_who_wrote_it(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"b": 1}, "acs-train fit")
    assert json.loads(file.read_text()) == {"written_by": "acs-train fit", "b": 1}
    assert written_by(file) == "acs-train fit"
    check_target(file)


def test_a_text_file_with_a_digest_is_replaced_until_it_is_edited(tmp_path):
    file = tmp_path / "a.yaml"
    text = sealed_text("steps: 3\n" * 1000, "acs-train fit")
    write_text(file, text, guarded=True)
    assert written_by(file) == "acs-train fit"
    check_target(file)
    write_text(file, text, guarded=True)
    for edited in (text + "# mine\n", text.replace("3", "4")):
        file.write_text(edited)
        with pytest.raises(OutputError, match=r"a\.yaml was changed since acs wrote it: .*move that one away"):
            check_target(file)
        with pytest.raises(OutputError, match=r"changed meanwhile, and acs did not write it: the new file is .*a-\d"):
            write_text(file, text, guarded=True)
        assert file.read_text() == edited


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.yaml", b"# written by acs-train fit\nepochs: 3\n"),  # no digest proves that it is unchanged
        ("a.json", b'{"labels": [1, 2]}'),
        ("a.json", b'{"labels": 1, "written_by": "acs-ground"}'),  # not where acs puts it
        ("a.json", b'{"written_by": "someone else"}'),
        ("a.html", b"<html><body>written by acs-train report</body></html>"),
        ("a.txt", b"notes"),
        ("a.png", b"\x89PNG\r\n\x1a\n damaged"),
        ("a.bmp", b"BM picture"),
        ("a", b"\0"),
    ],
)
def test_a_file_of_the_user_is_refused_and_stays(name, content, tmp_path):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(OutputError, match="acs did not write it: name another file, or move that one away"):
        check_target(file)
    assert file.read_bytes() == content


def test_a_picture_of_the_user_is_refused(tmp_path):
    from PIL import Image

    for name in ("a.png", "a.jpg", "a.webp"):
        Image.fromarray(PIXELS).save(tmp_path / name)
        with pytest.raises(OutputError, match="did not write it"):
            check_target(tmp_path / name)


def test_an_input_is_refused_under_any_name(tmp_path):
    file, link = tmp_path / "a.json", tmp_path / "b.json"
    write_json(file, {}, "acs-ground")
    link.symlink_to(file)
    with pytest.raises(OutputError, match="is read by this command"):
        check_target(link, [file])


def test_what_may_be_written(tmp_path):
    check_target(tmp_path / "new.json")
    (tmp_path / "empty.json").touch()
    check_target(tmp_path / "empty.json")
    (tmp_path / "null").symlink_to("/dev/null")
    check_target(tmp_path / "null")


def test_a_folder_that_takes_no_files_is_told_before_the_work(tmp_path):
    with pytest.raises(OutputError, match=r"^/proc/new\.json cannot be written: /proc takes no new files "):
        check_target(Path("/proc/new.json"))
    (tmp_path / "round.json").symlink_to(tmp_path / "round.json")
    with pytest.raises(OutputError, match="leads back to itself"):
        check_target(tmp_path / "round.json")
    with pytest.raises(OutputError, match="leads back to itself"):
        check_distinct(tmp_path / "round.json", None)
    (tmp_path / "round.json").unlink()
    (tmp_path / "link.json").symlink_to("/proc/new.json")
    with pytest.raises(OutputError, match=r"link\.json cannot be written: /proc"):
        check_target(tmp_path / "link.json")
    check_target(tmp_path / "new.json")
    assert [file.name for file in tmp_path.iterdir()] == ["link.json"]  # nothing is left behind


def test_two_outputs_are_not_one_file(tmp_path):
    (tmp_path / "link.json").symlink_to(tmp_path / "a.json")
    check_distinct(tmp_path / "a.json", None, tmp_path / "b.json", None)
    for other in ("a.json", "link.json", "x/../a.json"):
        with pytest.raises(OutputError, match="is named for two outputs"):
            check_distinct(tmp_path / "a.json", tmp_path / other)


def test_no_folder_and_a_folder_are_refused(tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        check_target(tmp_path / "none" / "a.json")
    with pytest.raises(OutputError, match="is a folder"):
        check_target(tmp_path)


def test_a_name_without_a_picture_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no picture format"):
        write_picture(tmp_path / "a.txt", PIXELS, "acs-ground")


def test_a_file_that_the_user_makes_during_the_run_stays(tmp_path):
    file = tmp_path / "a.json"
    with pytest.raises(OutputError, match=r"a-2\.json"), replaced(file, guarded=True) as beside:
        beside.write_text("made")
        file.write_text("mine")
    assert file.read_text() == "mine"
    assert (tmp_path / "a-2.json").read_text() == "made"
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a-2.json", "a.json"]

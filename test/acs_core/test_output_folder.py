"""Folders that commands write into: nothing of the user's is replaced or removed, one writer, whole or not there."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from acs_core.errors import OutputError
from acs_core.output import PART
from acs_core.output_folder import OutputFolder
from acs_core.output_marker import LOCK, MARKER, STAGED, WrittenFile


def content(folder):
    """All files below ``folder`` by name, without those that acs keeps."""
    return {
        str(f.relative_to(folder)): f.read_text()
        for f in sorted(folder.rglob("*"))
        if f.is_file() and f.name not in (MARKER, LOCK)
    }


def run(folder, files, *replaced, command="acs-test", **more):
    """One run of a command that makes ``files`` (name: text)."""
    with OutputFolder(folder, command, **more) as out, out.stage(*replaced) as staged:
        for name, text in files.items():
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            (staged / name).write_text(text)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_a_new_folder_is_marked_with_the_command(out):
    run(out, {"a.txt": "1", "frames/x.txt": "2"})
    assert content(out) == {"a.txt": "1", "frames/x.txt": "2"}
    assert json.loads((out / MARKER).read_text())["written_by"] == "acs-test"
    assert not list(out.glob(f"{STAGED}*"))


def test_an_empty_folder_is_taken(out):
    out.mkdir()
    run(out, {"a": "1"})
    assert content(out) == {"a": "1"}


def test_a_second_run_replaces_what_the_first_wrote(out):
    run(out, {"a": "1", "frames/1": "1", "frames/2": "2", "other/3": "3"})
    run(out, {"a": "2", "frames/1": "9"}, "frames/*")
    assert content(out) == {"a": "2", "frames/1": "9", "other/3": "3"}


def test_a_folder_of_the_user_is_refused_untouched(out):
    out.mkdir()
    (out / "photo.jpg").write_text("mine")
    before = sorted(out.rglob("*"))
    with pytest.raises(OutputError, match=r"is not empty, and acs did not make it \(it has photo\.jpg"):
        run(out, {"a": "1"})
    assert sorted(out.rglob("*")) == before
    assert content(out) == {"photo.jpg": "mine"}


def test_a_file_of_the_user_in_a_marked_folder_stays(out):
    run(out, {"frames/1": "1", "frames/2": "2"})
    (out / "frames" / "mine").write_text("mine")
    (out / "notes").write_text("mine too")
    run(out, {"frames/1": "3"}, "frames/*")
    assert content(out) == {"frames/1": "3", "frames/mine": "mine", "notes": "mine too"}


def test_a_file_of_the_user_where_a_result_goes_is_found_before_the_work(out):
    run(out, {"a": "1"})
    (out / "report.html").write_text("mine")
    with pytest.raises(OutputError, match=r"report\.html, not written by acs"):
        OutputFolder(out, "acs-test", replaces=["report.html"]).__enter__()
    assert content(out) == {"a": "1", "report.html": "mine"}


def test_a_result_that_the_user_changed_is_not_replaced(out):
    run(out, {"labels.json": "{}"})
    (out / "labels.json").write_text('{"by": "hand"}')
    with pytest.raises(OutputError, match=r"labels\.json, changed since acs wrote it"):
        OutputFolder(out, "acs-test", replaces=["labels.json"]).__enter__()
    with pytest.raises(OutputError, match="What was made now is in") as caught:
        run(out, {"labels.json": "{}", "more": "2"})
    kept = str(caught.value).rpartition(" ")[2]
    assert (out / "labels.json").read_text() == '{"by": "hand"}'
    assert content(out)[f"{kept.rpartition('/')[2]}/more"] == "2"  # nothing that was worked for is lost


def test_a_result_that_the_user_changed_is_not_removed(out):
    run(out, {"frames/1": "1", "frames/2": "2"})
    (out / "frames" / "2").write_text("drawn on")
    run(out, {"frames/3": "3"}, "frames/*")
    assert content(out) == {"frames/2": "drawn on", "frames/3": "3"}


def test_a_copy_of_the_folder_is_still_known(out, tmp_path):
    run(out, {"a": "1"})
    shutil.copytree(out, tmp_path / "copy", copy_function=shutil.copyfile)  # other time stamps
    run(tmp_path / "copy", {"a": "2"}, replaces=["a"])
    assert content(tmp_path / "copy") == {"a": "2"}


def test_links_lead_nowhere(out, tmp_path):
    run(out, {"frames/1": "1"})
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "1").write_text("mine")
    shutil.rmtree(out / "frames")
    (out / "frames").symlink_to(photos)
    with pytest.raises(OutputError, match="frames"):
        OutputFolder(out, "acs-test", replaces=["frames/*"]).__enter__()
    with pytest.raises(OutputError, match="What was made now is in"):
        run(out, {"frames/1": "2"}, "frames/*")
    assert content(photos) == {"1": "mine"}


def test_the_folder_of_another_command_is_refused(out):
    run(out, {"a": "1"})
    with pytest.raises(OutputError, match="was made by `acs-test`, not by `acs-train fit`"):
        run(out, {"a": "2"}, command="acs-train fit")
    run(out, {"a": "2"}, command="acs-train fit", shared_with=["acs-test"])
    assert content(out) == {"a": "2"}


@pytest.mark.parametrize("given", ["", "photos", "photos/instances.json"])
def test_an_input_in_the_output_is_refused(given, tmp_path):
    out = tmp_path / "out"
    run(out, {"photos/instances.json": "{}"})
    with pytest.raises(OutputError, match=r"reads|is read by"):
        run(out, {"a": "1"}, inputs=[out / given])
    assert content(out) == {"photos/instances.json": "{}"}


def test_an_output_in_the_input_is_fine(tmp_path):
    run(tmp_path / "photos" / "out", {"a": "1"}, inputs=[tmp_path / "photos"])
    assert content(tmp_path) == {"photos/out/a": "1"}


def test_a_folder_may_be_adopted_without_touching_what_is_in_it(out):
    out.mkdir()
    (out / "config.json").write_text("model")

    def is_model(folder):
        return (folder / "config.json").is_file()

    run(out, {"heads.json": "1"}, adopts=is_model)
    assert content(out) == {"config.json": "model", "heads.json": "1"}
    with pytest.raises(OutputError, match=r"config\.json, not written by acs"):
        run(out, {}, adopts=is_model, replaces=["config.json"])


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(OutputError, match="is not a folder"):
        run(tmp_path / "a", {})
    with pytest.raises(OSError, match=str(tmp_path / "a" / "b")):
        run(tmp_path / "a" / "b", {})


def test_a_link_that_leads_nowhere_is_named(out, tmp_path):
    out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="is not a folder, or a link to none"):
        run(out, {})


def test_what_an_earlier_run_wrote_is_known(out):
    run(out, {"a": "1", "b": "1"})
    (out / "b").write_text("mine")
    with OutputFolder(out, "acs-test") as folder:
        assert folder.has("a") and not folder.has("b") and not folder.has("c")
        assert folder.has("c", "?") and not folder.has("[bc]") and not folder.has()


def test_a_block_that_fails_changes_nothing(out):
    run(out, {"a": "1", "frames/1": "1"})
    with pytest.raises(RuntimeError), OutputFolder(out, "acs-test") as folder, folder.stage("frames/*") as staged:
        (staged / "a").write_text("2")
        raise RuntimeError
    assert content(out) == {"a": "1", "frames/1": "1"}


def test_an_error_names_the_place_that_the_file_was_for(out):
    with pytest.raises(OSError) as caught, OutputFolder(out, "acs-test") as folder, folder.stage() as staged:
        raise OSError(errno.ENOSPC, "No space left on device", str(staged / "tables" / "t.csv"))
    assert caught.value.filename == str(out / "tables" / "t.csv")


KILLED = """
import os, signal, sys
from pathlib import Path
from acs_core.output_folder import OutputFolder

moves = 0

def move(self, target, whole=Path.replace):
    global moves
    moves += ".acs-staged-" in str(self)
    if moves == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(self, target)

Path.replace = move
with OutputFolder(sys.argv[1], "acs-test") as out, out.stage("frames/*") as staged:
    (staged / "frames").mkdir()
    for name in ("a", "frames/1", "frames/4"):
        (staged / name).write_text("2")
"""


@pytest.fixture
def killed(out):
    """Kills a run that replaces frames 1 and 2 by 1 and 4, before its ``move``-th file comes to its place."""

    def kill(move):
        run(out, {"a": "1", "frames/1": "1", "frames/2": "1"})
        done = subprocess.run([sys.executable, "-c", KILLED, str(out), str(move)], capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr

    return kill


@pytest.mark.parametrize("move", [1, 2, 3])
def test_what_a_killed_run_had_made_comes_to_its_place_with_the_next(out, killed, move):
    killed(move)
    with OutputFolder(out, "acs-test", replaces=["*"]):
        assert content(out) == {"a": "2", "frames/1": "2", "frames/4": "2"}
    run(out, {"a": "3"}, "frames/*", replaces=["*"])
    assert content(out) == {"a": "3"}


def test_a_file_that_the_user_changes_after_a_kill_stays(out, killed):
    killed(3)
    (out / "frames" / "1").write_text("mine")
    with pytest.raises(OutputError, match=r"frames/1, changed since acs wrote it"):
        run(out, {"a": "3"}, replaces=["frames/*"])
    assert content(out)["frames/1"] == "mine"


def test_a_file_of_the_user_where_a_killed_run_moves_to_stays(out, killed):
    killed(3)
    (out / "frames" / "4").write_text("mine")
    with pytest.raises(OutputError, match="What was made is in") as caught:
        run(out, {"a": "3"})
    kept = str(caught.value).rpartition("/")[2]
    assert content(out) | {"frames/4": "mine", f"{kept}/frames/4": "2"} == content(out)
    run(out, {"a": "3"})  # it is told once


@pytest.mark.parametrize("error", [KeyboardInterrupt(), PermissionError(13, "Permission denied")])
def test_results_are_not_lost_when_moving_them_fails(out, error, monkeypatch):
    run(out, {"a": "1", "b": "1", "c": "1"})
    failing = [error]

    def move(self, target, whole=Path.replace):
        if STAGED in str(self) and self.name == "b" and failing:
            raise failing.pop()
        return whole(self, target)

    monkeypatch.setattr(Path, "replace", move)
    with pytest.raises((KeyboardInterrupt, OutputError)) as caught:
        run(out, {"a": "2", "b": "2", "c": "2"})
    if caught.type is OutputError:
        assert "The new results are whole in" in str(caught.value)
        OutputFolder(out, "acs-test").__enter__()
    assert content(out) == {"a": "2", "b": "2", "c": "2"}


@pytest.mark.parametrize("name", ["../victim", "frames/../../victim", "/victim", MARKER, LOCK, ""])
def test_a_marker_cannot_name_files_outside_the_folder(name, out, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    run(out, {"a": "1"})
    written = WrittenFile.of(victim)
    entry = [written.size, written.mtime_ns, written.sha256]
    marker = json.loads((out / MARKER).read_text())
    marker["files"][str(victim) if name == "/victim" else name] = entry
    (out / MARKER).write_text(json.dumps(marker))
    with pytest.raises(OutputError, match="no file of this folder"):
        run(out, {}, "*")
    assert victim.read_text() == "mine"


def test_a_marker_that_is_a_link_proves_nothing(out, tmp_path):
    run(out, {"a": "1"})
    (out / MARKER).rename(tmp_path / "marker")
    (out / MARKER).symlink_to(tmp_path / "marker")
    with pytest.raises(OutputError, match="it is a link"):
        run(out, {"a": "2"})


def _link(lock, mine):
    lock.symlink_to(mine)


def _hard_link(lock, mine):
    lock.hardlink_to(mine)


def _pipe(lock, mine):
    os.mkfifo(lock)


def _other_text(lock, mine):
    lock.write_text("mine")


@pytest.mark.parametrize("make", [_link, _hard_link, _pipe, _other_text])
def test_a_file_of_the_user_in_place_of_the_lock_stays(make, out, tmp_path):
    mine = tmp_path / "notes.txt"
    mine.write_text("mine")
    out.mkdir()
    make(out / LOCK, mine)
    with pytest.raises(OutputError, match="is not a lock of acs"):
        run(out, {"a": "1"})
    assert mine.read_text() == "mine"
    assert [f.name for f in out.iterdir()] == [LOCK]


def test_odd_entries_are_left_alone(out, tmp_path):
    run(out, {"a": "1", "b": "1"})
    (out / "b").unlink()
    (out / "b").symlink_to(tmp_path / "nowhere")
    (out / f"{STAGED}1").write_text("mine")
    (out / f"{STAGED}x").mkdir()
    (out / f"{STAGED}2").symlink_to(tmp_path)
    run(out, {"a": "2"})
    with pytest.raises(OutputError, match="holds b, changed since"):
        run(out, {"a": "3"}, replaces=["b"])
    assert (out / f"{STAGED}1").read_text() == "mine"
    assert (out / f"{STAGED}x").is_dir() and (out / f"{STAGED}2").is_symlink()


def test_a_process_that_was_killed_while_it_took_the_folder_does_not_block_the_next(out):
    run(out, {})
    (out / MARKER).rename(out / f"{PART}0123-marker.json")
    run(out, {"a": "1"})
    assert content(out) == {"a": "1"}


def test_a_file_system_without_locks_is_named(out, monkeypatch):
    def no_locks(handle, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(OutputError, match="file system without locks"):
        run(out, {"a": "1"})


def test_of_two_processes_that_take_a_new_folder_one_is_told_of_the_other(out):
    words = [sys.executable, "-c", TAKE, str(out)]
    both = [subprocess.Popen(words, stdin=PIPE, stdout=PIPE, text=True) for _ in range(2)]
    try:
        for process in both:
            assert process.stdout.readline() == "ready\n"
        for process in both:
            process.stdin.write("go\n")
            process.stdin.flush()
        said = sorted(process.stdout.readline() for process in both)
    finally:
        for process in both:
            process.kill()
            process.wait()
    assert said[0].startswith(f"{out} is being written by acs-test (process") or said[0].startswith(
        f"{out} is being written by another process"
    )
    assert said[1] == "held\n"


TAKE = """
import sys
from acs_core.errors import OutputError
from acs_core.output import PART
from acs_core.output_folder import OutputFolder
print("ready", flush=True)
sys.stdin.readline()
try:
    with OutputFolder(sys.argv[1], "acs-test"):
        print("held", flush=True)
        sys.stdin.read()
except OutputError as error:
    print(error, flush=True)
"""


@pytest.mark.parametrize("text", ["", "[]", '{"schema_version": 1}', '{"schema_version": 2}', "\0"])
def test_a_damaged_marker_proves_nothing(text, out):
    run(out, {"a": "1"})
    (out / MARKER).write_text(text)
    with pytest.raises(OutputError, match="cannot be read"):
        run(out, {"a": "2"})
    assert content(out) == {"a": "1"}


HOLD = """
import sys
from acs_core.output_folder import OutputFolder
with OutputFolder(sys.argv[1], "acs-train evaluate"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(out):
    """Another process that holds the folder until its input ends."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_writer_is_told_who_holds_the_folder(out, holder):
    with pytest.raises(OutputError, match=rf"is being written by acs-train evaluate \(process {holder.pid} on"):
        run(out, {"a": "1"}, command="acs-train evaluate")
    waited = []
    run(out, {"a": "1"}, command="acs-train evaluate", wait=lambda: (waited.append(1), holder.stdin.close()))
    assert waited == [1]
    assert content(out) == {"a": "1"}


def test_a_holder_that_was_killed_holds_nothing(out, holder):
    holder.kill()
    holder.wait()
    run(out, {"a": "1"}, command="acs-train evaluate")
    assert content(out) == {"a": "1"}

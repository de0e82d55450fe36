"""A full disk: what was there stays whole, nothing is left half written, and the error says where and what to do."""

import json
import subprocess
import sys

import pytest
from eval_parts import evaluation
from made_up_parts import made_up

from acs_core.evaluation.storage import save

pytestmark = pytest.mark.long
LONG_S = 300
# Runs in a mount namespace of its own: argv is the folder that becomes a small disk, what the commands read, the
# kind of command, and how many bytes stay free for its second run.
SCRIPT = """
import hashlib, json, os, subprocess, sys
from pathlib import Path
from typer.testing import CliRunner
from acs_core import cli as ground
from acs_core.output_marker import LOCK, MARKER
from training.cli import main as train

disk, evaluation, photo, store, work, spare = Path(sys.argv[1]), *sys.argv[2:6], int(sys.argv[7])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], check=True)

def run(main, *words):
    from unittest import mock
    with mock.patch.object(sys, "argv", ["acs", *words]):
        try:
            return main() or 0
        except SystemExit as ended:
            return ended.code or 0

def files():
    return {
        str(f.relative_to(disk)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(disk.rglob("*"))
        if f.is_file() and f.name not in ("rubbish", LOCK, MARKER)
    }

fit = ["fit", "--store", store, "--work", work, "--epochs", "1", "--device", "cpu"]
report = ["report", evaluation, "--draws", "100", "--pictures", "0"]
kinds = {
    "tables": (train.main, [*report, "--tables", str(disk / "tables")]),
    "page": (train.main, [*report, "--out", str(disk / "page.html")]),
    "json": (train.main, [*report, "--json", str(disk / "all.json")]),
    "fit": (train.main, [*fit, "--out", str(disk / "files")]),
    "picture": (ground.main, [photo, "key", "--samples", "1", "--out", str(disk / "answer.png")]),
}
main, words = kinds[sys.argv[6]]
first = run(main, *words)
whole = files()
with open(disk / "rubbish", "wb", buffering=0) as rubbish:
    try:
        while True:
            rubbish.write(bytes(512))
    except OSError:
        rubbish.truncate(rubbish.tell() - spare)
print("----", file=sys.stderr)
second = run(main, *words)
left = sorted(f.name for f in disk.rglob("*") if f.name.startswith(".") and f.name not in (LOCK, MARKER))
print("RESULT", json.dumps({"first": first, "second": second, "whole": whole, "after": files(), "left": left}))
"""


@pytest.fixture
def in_own_namespace():
    """Words before a command that give it mounts of its own."""
    words = ["unshare", "--mount", "--map-root-user"]
    try:
        tried = subprocess.run([*words, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, timeout=LONG_S)
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if tried.returncode:
        pytest.skip("this machine allows no mounts in a namespace")
    return words


# Half of what `fit` writes fits on the disk: the marker of its folder does, and the regressor does not.
@pytest.mark.parametrize(("kind", "spare"), [("tables", 0), ("page", 0), ("json", 0), ("picture", 0), ("fit", 1 << 20)])
def test_a_full_disk_leaves_what_was_there(kind, spare, in_own_namespace, tmp_path, repo):
    disk = tmp_path / "disk"
    disk.mkdir()
    save(evaluation(count=20, several=False), tmp_path / "evaluation.json.gz")
    words = [sys.executable, "-c", SCRIPT, str(disk), str(tmp_path / "evaluation.json.gz")]
    if kind == "fit":
        made_up(tmp_path / "store")
    words += [str(repo / "docs" / "sample.png"), str(tmp_path / "store"), str(tmp_path / "work"), kind, str(spare)]
    done = subprocess.run([*in_own_namespace, *words], capture_output=True, text=True, timeout=LONG_S, cwd=repo)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.rpartition("RESULT ")[2])
    assert result["first"] == 0 and result["whole"]
    assert result["second"] == 1
    assert result["after"] == result["whole"]
    assert result["left"] == []
    said = " ".join(done.stderr.partition("----")[2].split())
    assert f"{disk}" in said
    assert "No space left on device" in said and "MB free" in said
    assert "Free some space, or write to another disk" in said
    assert "Traceback" not in said

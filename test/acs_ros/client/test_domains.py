"""DDS domains that processes of one machine take for themselves."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from acs_ros.client.background_node import BackgroundNode
from acs_ros.client.domains import (
    DOMAIN_PORTS,
    FIRST_PORT,
    LOCK_FOLDER,
    LOCK_NAME,
    PRIVATE,
    domains_in_use,
    own_domain,
    private_domain,
)
from acs_ros.errors import NodeTrouble

NOBODY = 65534


@pytest.fixture
def alone(monkeypatch):
    """Participants of other tests and programs, which come and go, count for nothing."""
    monkeypatch.setattr("acs_ros.client.domains.domains_in_use", lambda own=False: set())


def test_a_taken_domain_is_nobody_elses_until_it_is_left(tmp_path, alone):
    with private_domain(10, tmp_path) as mine, private_domain(10, tmp_path) as theirs:
        assert theirs != mine
    with private_domain(10, tmp_path) as again:
        assert again == mine


def test_another_process_holds_its_domain_until_it_is_killed(tmp_path, alone):
    script = f"""
from pathlib import Path
from acs_ros.client import domains
domains.domains_in_use = lambda own=False: set()
with domains.private_domain(10, Path({str(tmp_path)!r})) as domain:
    print(domain, flush=True)
    input()
"""
    holder = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        theirs = int(holder.stdout.readline())
        with private_domain(10, tmp_path) as mine:
            assert mine != theirs
    finally:
        holder.kill()
        holder.communicate()
    with private_domain(10, tmp_path) as after:
        assert after == theirs


def test_all_domains_are_tried_and_then_it_is_said(tmp_path, alone):
    with ExitStack() as taken:
        got = [taken.enter_context(private_domain(PRIVATE[-1], tmp_path)) for _ in PRIVATE]
        assert sorted(got) == list(PRIVATE)
        with pytest.raises(NodeTrouble, match="ROS_DOMAIN_ID"), private_domain(folder=tmp_path):
            pass


def test_a_domain_with_a_participant_that_reserved_none_is_left_out(tmp_path):
    """What outlives its test or its starter was met by the next one that came to the domain."""
    with private_domain(20, tmp_path) as free:
        pass
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as participant:
        participant.bind(("127.0.0.1", FIRST_PORT + DOMAIN_PORTS * free + 10))  # DDSI-RTPS 9.6.1.1: of the first one
        assert free in domains_in_use() and free in domains_in_use(own=True)
        with private_domain(20, tmp_path) as other:
            assert other != free
    with private_domain(20, tmp_path) as again:
        assert again == free or free in domains_in_use()  # of another program


def test_a_nodes_domain_is_in_use_until_the_node_has_left(domain):
    with BackgroundNode("guest", domain):
        assert domain in domains_in_use(own=True) and domain in domains_in_use()
    assert domain not in domains_in_use(own=True)


def test_the_lock_files_are_in_one_folder_whatever_tmpdir_is(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with private_domain() as one, private_domain() as other:
        assert one != other
        assert (LOCK_FOLDER / LOCK_NAME.format(one)).exists() and not list(tmp_path.iterdir())


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path, alone):
    (tmp_path / "precious").write_text("mine")
    for domain in PRIVATE[1:]:
        (tmp_path / LOCK_NAME.format(domain)).symlink_to(tmp_path / "precious")
    with private_domain(50, tmp_path) as got:
        assert got == PRIVATE[0]


def test_the_users_domain_is_taken_as_it_is(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "0")
    with own_domain() as one, own_domain() as other:
        assert one == other == 0


def test_without_one_a_private_domain_is_taken_and_exported_where_wanted(monkeypatch):
    monkeypatch.delenv("ROS_DOMAIN_ID")
    with own_domain() as domain:
        assert domain in PRIVATE
        with own_domain(export=True) as exported, own_domain() as inherited:
            assert exported == inherited != domain
    with own_domain() as later:
        assert later in PRIVATE


@pytest.mark.parametrize(
    "given", ["mine", "-1", "1.5", "233", "5000", "\N{ARABIC-INDIC DIGIT ONE}", pytest.param("1" * 5000, id="long")]
)
def test_a_domain_that_dds_does_not_have_is_named(monkeypatch, given):
    monkeypatch.setenv("ROS_DOMAIN_ID", given)
    with pytest.raises(NodeTrouble, match="whole number from 0 to 232, it is '") as caught, own_domain():
        pass
    assert given[:30] in str(caught.value) and len(str(caught.value)) < 300


def test_the_last_domain_of_dds_can_be_named(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "0232")
    with own_domain() as domain:
        assert domain == 232


def test_the_lock_files_of_one_user_serve_another():
    """They had the mode 0600: a second user of the machine got no domain at all."""
    with tempfile.TemporaryDirectory() as name:  # pytest closes its own folders to other users
        folder = Path(name)
        folder.chmod(0o1777)  # as /tmp is
        before = os.umask(0o077)
        try:
            with private_domain(10, folder) as first:
                pass
        finally:
            os.umask(before)
        assert (folder / LOCK_NAME.format(first)).stat().st_mode & 0o777 == 0o644
        with as_other_user(folder), private_domain(10, folder) as mine:
            assert mine == first
            with private_domain(10, folder) as theirs:
                assert theirs != first


@contextmanager
def as_other_user(folder):
    """This process is another user than the owner of the files meanwhile, or else may only read them."""
    if os.geteuid():
        for file in folder.iterdir():
            file.chmod(0o444)
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_pipe_in_the_place_of_a_lock_holds_nobody_up(tmp_path):
    os.mkfifo(tmp_path / LOCK_NAME.format(PRIVATE[10]))
    with private_domain(10, tmp_path) as got:
        assert got in PRIVATE

"""DDS domains that are reserved for one process of this machine at a time.

Nodes of the same name on one domain answer each other's requests, so that concurrent runs of a command or of the tests
would disturb one another. A domain is reserved by a lock on a file, which the operating system releases when the
process ends for any reason. A domain that participants are on without a lock, for example those of a process that
outlives the one that reserved it, is not given out.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from acs_core.artifacts.json_io import shorten
from acs_ros.errors import NodeTrouble

# Domains above 101 use ports that Linux assigns to outgoing connections; 0 is the default of all nodes.
PRIVATE = range(1, 102)
LAST = 232  # the ports of higher domains would exceed 65535
LOCK_NAME = "acs_dds_domain_{}.lock"
LOCK_FOLDER = Path("/tmp")  # where it can be written: runs with different TMPDIR share the domains all the same
# UDP ports of the DDS specification (DDSI-RTPS, 9.6.1.1), without those of a domain's participants from the 54th on: in
# the last domains, they would be ports of outgoing connections.
FIRST_PORT, DOMAIN_PORTS, OWN_PORTS = 7400, 250, 118
SOCKETS = (Path("/proc/net/udp"), Path("/proc/net/udp6"))


@contextmanager
def private_domain(first: int | None = None, folder: Path | None = None) -> Iterator[int]:
    """Reserve a domain from PRIVATE that no other caller on this machine has, until the context is left.

    Args:
        first: domain to try first, followed by the next ones; None to derive it from the process id.
        folder: folder of the lock files; None for LOCK_FOLDER, or the one of temporary files where that cannot be
            written.

    Raises:
        NodeTrouble: all domains are reserved, or no lock can be created in the folder.
    """
    place = folder or (LOCK_FOLDER if os.access(LOCK_FOLDER, os.W_OK) else Path(tempfile.gettempdir()))
    begin = (os.getpid() if first is None else first) % len(PRIVATE)
    problem: object = None
    for domain in (*PRIVATE[begin:], *PRIVATE[:begin]):
        try:
            lock = _lock(place / LOCK_NAME.format(domain))
        except OSError as error:  # reserved, or another user's file
            problem = error
            continue
        if domain in domains_in_use():  # looked at under the lock: nobody else can have taken it since
            problem = f"there are participants on domain {domain}"
            os.close(lock)
            continue
        try:
            yield domain
        finally:
            os.close(lock)
        return
    raise NodeTrouble(
        f"none of the DDS domains {PRIVATE[0]} to {PRIVATE[-1]} can be taken (lock files in {place}: {problem}): "
        "end a process that uses one, or name a domain in ROS_DOMAIN_ID"
    )


def domains_in_use(own: bool = False) -> set[int]:
    """Return the domains whose UDP ports are bound on this machine, as by every participant that uses UDP; with ``own``
    only by this process."""
    sockets = _own_sockets() if own else None
    found = set()
    for table in SOCKETS:
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:  # no IPv6, or no /proc
            continue
        for line in lines:  # of: slot, local address:port in hexadecimal, ..., inode as the tenth
            words = line.split()
            domain, port = divmod(int(words[1].rpartition(":")[2], 16) - FIRST_PORT, DOMAIN_PORTS)
            if 0 <= domain <= LAST and port < OWN_PORTS and (sockets is None or words[9] in sockets):
                found.add(domain)
    return found


def _own_sockets() -> set[str]:
    """Inodes of the sockets that are open in this process."""
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            links.append(str(descriptor.readlink()))
    return {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:[")}


@contextmanager
def own_domain(export: bool = False) -> Iterator[int]:
    """Yield the user's domain (ROS_DOMAIN_ID), or reserve one by :func:`private_domain` if it is not set.

    Args:
        export: whether to set ROS_DOMAIN_ID in the block, for processes that inherit the environment.

    Raises:
        NodeTrouble: ROS_DOMAIN_ID is not a whole number from 0 to 232, or no domain can be reserved.
    """
    given = os.environ.get("ROS_DOMAIN_ID", "")
    if given and not (re.fullmatch("0*[0-9]{1,3}", given) and int(given) <= LAST):
        raise NodeTrouble(f"ROS_DOMAIN_ID must be a whole number from 0 to {LAST}, it is {shorten(given)}")
    if given:
        yield int(given)
        return
    with private_domain() as domain:
        if export:
            os.environ["ROS_DOMAIN_ID"] = str(domain)
        try:
            yield domain
        finally:
            if export:
                os.environ.pop("ROS_DOMAIN_ID", None)


def _lock(file: Path) -> int:
    """Return a descriptor that holds the lock of ``file``. The file is never removed: another process could lock a new
    file of the same name."""
    # Every user of the machine locks the same files. A lock needs no write access, and in /tmp Linux refuses O_CREAT
    # for a file that another user made.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # opening a pipe would otherwise block
    try:
        descriptor = os.open(file, flags)
    except FileNotFoundError:
        descriptor = _create(file, flags)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _create(file: Path, flags: int) -> int:
    """Create ``file`` readable for all users, whatever the umask is; returns its descriptor."""
    try:
        descriptor = os.open(file, flags | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:  # another process was faster
        return os.open(file, flags)
    os.fchmod(descriptor, 0o644)
    return descriptor

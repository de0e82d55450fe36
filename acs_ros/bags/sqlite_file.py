"""Reader of sqlite3 files of bags, intact or damaged. A recording that was cut off lacks its last pages.

A sqlite3 file can contain code: a view, a virtual table or a computed column with the name of a table runs when it is
read, and pages can be linked so that a small file has endless rows. Therefore only plain tables are read, and the work
is bounded by the file's size.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from rosbags.rosbag2.errors import ReaderError

from acs_core.plain_text import join_some
from acs_ros.bags.recovery import Message, unpacked
from acs_ros.bags.unpacking import MAX_UNPACKED
from acs_ros.errors import BagError

TABLES = ("topics", "messages")
STEPS = 10_000  # of SQLite's virtual machine between two checks of the count
FEWEST_STEPS = 10_000_000  # a fraction of a second
STEPS_PER_BYTE = 20  # a message takes some 50 steps, and at least 20 bytes of the file
TOO_MANY_STEPS = "it takes more steps to read than a file of its size needs"
ROOM = 2**20  # bytes


class SqliteFile:
    """Messages of a sqlite3 file. ``problem`` describes the damage once :meth:`messages` has reached it.

    Raises:
        ReaderError: not even its list of topics can be read, or it contains code.
        BagError: its messages are not CDR.
    """

    def __init__(self, path: Path) -> None:
        self.problem = ""
        self._size = path.stat().st_size
        self._steps_left = FEWEST_STEPS + STEPS_PER_BYTE * self._size
        self._whole = self._size >= _said_size(path)
        self._database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            self._restrict()
            rows = self._database.execute("SELECT id, name, type, serialization_format FROM topics").fetchall()
        except (sqlite3.Error, OverflowError) as error:
            self._database.close()
            raise ReaderError(self._said(error)) from error
        except ReaderError:
            self._database.close()
            raise
        formats = {str(form) for *_, form in rows}
        if formats - {"cdr"}:
            self._database.close()
            raise BagError(f"{path}: its messages are serialized as {join_some(sorted(formats))}, not as cdr")
        self._names = {key: str(name) for key, name, *_ in rows}
        self.topics = {str(name): str(kind) for _, name, kind, _ in rows}

    def messages(self) -> Iterator[Message]:
        """Yield all messages in the order of their times, or of a damaged file in the order of writing, up to the first
        that cannot be read."""
        # By row: the index over the times usually lies behind the place where a file breaks. The rows are looked up one
        # by one, so that nothing but times is ever sorted.
        order = "timestamp, rowid" if self._whole else "rowid"
        left = 2 * self._size + ROOM
        try:
            for (row,) in self._database.execute(f"SELECT rowid FROM messages ORDER BY {order}"):
                found = self._database.execute("SELECT topic_id, timestamp, data FROM messages WHERE rowid=?", (row,))
                topic, time_ns, data = found.fetchone() or (None, None, None)
                if not isinstance(time_ns, int) or not isinstance(data, bytes):
                    self.problem = f"row {row} of the table messages holds no message"
                    return
                left -= len(data)
                if left < 0:
                    self.problem = "its messages are larger than the file"
                    return
                if topic in self._names:
                    yield Message(self._names[topic], time_ns, unpacked(data))
        except (sqlite3.Error, ReaderError) as error:
            self.problem = self._said(error)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _restrict(self) -> None:
        """Restrict the connection to reading the columns of two plain tables."""
        self._database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_UNPACKED)
        self._database.set_progress_handler(self._stop, STEPS)
        self._database.execute("PRAGMA trusted_schema=OFF")
        # Otherwise SQLite refuses files that are shorter than their header says. Nothing is written.
        self._database.execute("PRAGMA writable_schema=ON")
        for table in TABLES:
            kinds = self._database.execute("SELECT type, sql FROM sqlite_master WHERE name=?", (table,)).fetchall()
            if not kinds:
                raise ReaderError(f"no such table: {table}")
            if len(kinds) > 1 or kinds[0][0] != "table" or not str(kinds[0][1]).startswith("CREATE TABLE"):
                raise ReaderError(f"{table} is not one plain table, but a view or something that runs when it is read")
            if any(hidden for *_, hidden in self._database.execute(f"PRAGMA table_xinfo({table})")):
                raise ReaderError(f"the table {table} has computed or hidden columns")
        self._database.set_authorizer(_judge)

    def _said(self, error: Exception) -> str:
        """Return the message for ``error``; SQLite itself says only "interrupted" if :meth:`_stop` ended a
        statement."""
        return TOO_MANY_STEPS if self._steps_left < 0 else str(error)

    def _stop(self) -> bool:
        self._steps_left -= STEPS
        return self._steps_left < 0


def _judge(action: int, table: str | None, _column: str | None, _database: str | None, through: str | None) -> int:
    """SQLite authorizer that allows reading TABLES directly; ``through`` names a view or trigger, which is denied."""
    reads = action == sqlite3.SQLITE_READ and str(table).lower() in TABLES
    return sqlite3.SQLITE_OK if not through and (reads or action == sqlite3.SQLITE_SELECT) else sqlite3.SQLITE_DENY


def _said_size(path: Path) -> int:
    """Return the size in bytes according to the file's header; 0 without an SQLite header."""
    with path.open("rb") as file:
        head = file.read(32)
    if not head.startswith(b"SQLite format 3\0") or len(head) < 32:
        return 0
    page = int.from_bytes(head[16:18], "big")
    return int.from_bytes(head[28:32], "big") * (65536 if page == 1 else page)

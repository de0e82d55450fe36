from __future__ import annotations

import pytest

from acs_ros.sparing import LOG_PERIOD_S, SparingLogger


class Log:
    def __init__(self) -> None:
        self.now, self.lines = 100.0, []
        self.sparing = SparingLogger(self, lambda: self.now)

    def info(self, text):
        self.lines.append(("info", text))

    def warning(self, text):
        self.lines.append(("warning", text))


@pytest.fixture
def log():
    return Log()


def test_a_flood_writes_one_line_of_each_kind_in_a_while(log):
    for number in range(1000):
        log.sparing.warning("stamps", f"stamp {number}")
        log.sparing.info("query", f"query {number}")
    assert log.lines == [("warning", "stamp 0"), ("info", "query 0")]
    log.now += LOG_PERIOD_S / 2
    log.sparing.warning("stamps", "too early")
    log.now += LOG_PERIOD_S / 2
    log.sparing.warning("stamps", "again")
    assert log.lines[2:] == [("warning", "again")]


def test_the_text_of_a_line_that_is_spared_is_not_made(log):
    made = []
    for _ in range(3):
        log.sparing.info("kind", lambda: made.append(1) or "costly")
    assert made == [1] and log.lines == [("info", "costly")]

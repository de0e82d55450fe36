from __future__ import annotations

from types import SimpleNamespace

from std_msgs.msg import String

import acs_ros.node.reporter
from acs_ros.conversions.images import stamp_ns


def test_a_flood_of_changes_is_told_at_once_and_when_it_ebbs(make_rig, grounder, until, monkeypatch):
    """Each query was told on /diagnostics by itself, which took more time than all else about it."""
    monkeypatch.setattr(acs_ros.node.reporter, "SOON_S", 3.0)  # the flood is over by then, on any machine
    rig = make_rig(lambda settings: grounder, diagnostics_period=60.0)
    told = []
    publish = rig.node.reporter.publish
    monkeypatch.setattr(rig.node.reporter, "publish", lambda: told.append(rig.node.query_manager.queries) or publish())
    monkeypatch.setattr(acs_ros.node.reporter, "time", SimpleNamespace(monotonic=lambda: 1e9))  # all in one moment
    for number in range(500):
        rig.node._on_query(String(data=f"thing {number}"))
    until(lambda: told and told[-1] == ("thing 499",), "the last query to be told")
    assert told == [("thing 0",), ("thing 499",)]


def test_changes_that_come_one_by_one_are_each_told_at_once(make_rig, grounder, monkeypatch):
    rig = make_rig(lambda settings: grounder, diagnostics_period=60.0)
    now, told = [1e9], []
    publish = rig.node.reporter.publish
    monkeypatch.setattr(rig.node.reporter, "publish", lambda: told.append(rig.node.query_manager.queries) or publish())
    monkeypatch.setattr(acs_ros.node.reporter, "time", SimpleNamespace(monotonic=lambda: now[0]))
    for number in range(3):
        now[0] += 1.0
        rig.node._on_query(String(data=f"thing {number}"))
    assert told == [("thing 0",), ("thing 1",), ("thing 2",)]


def test_a_status_is_not_older_than_its_stamp(make_rig, grounder, monkeypatch):
    """Two threads publish: with a stamp made last, facts from before a failure came as news after it."""
    rig = make_rig(lambda settings: grounder, diagnostics_period=60.0)
    looked, told, facts = [], [], rig.node.statistics.snapshot
    monkeypatch.setattr(
        rig.node.statistics, "snapshot", lambda: looked.append(rig.node.get_clock().now().nanoseconds) or facts()
    )
    monkeypatch.setattr(rig.node.reporter, "_publisher", SimpleNamespace(publish=told.append))
    rig.node.reporter.publish()
    assert stamp_ns(told[0].header) <= looked[0]

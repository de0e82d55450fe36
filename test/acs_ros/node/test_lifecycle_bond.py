"""The bond with a lifecycle manager: with the real bondpy where it is installed, and with what replaces it here."""

from __future__ import annotations

import sys
import types

import pytest
from std_msgs.msg import String

from acs_ros.client.background_node import BackgroundNode
from acs_ros.node.lifecycle_bond import TIMEOUT_PARAMETER, LifecycleBond, find_bond


class FakeBond:
    """Has the constructor and methods of bondpy 4.1 that are used, and notes the calls."""

    made: list[FakeBond]

    def __init__(self, node, topic, bond_id):
        self.node, self.topic, self.id = node, topic, bond_id
        self.calls = []
        self.pub = node.create_publisher(String, topic, 1)
        FakeBond.made.append(self)

    def set_formed_callback(self, on_formed):
        self.on_formed = on_formed

    def set_broken_callback(self, on_broken):
        self.on_broken = on_broken

    def set_heartbeat_period(self, seconds):
        self.calls.append(f"period {seconds:g}")

    def set_heartbeat_timeout(self, seconds):
        self.calls.append(f"timeout {seconds:g}")

    def start(self):
        self.sub = self.node.create_subscription(String, self.topic, lambda msg: None, 1)
        self.calls.append("start")

    def shutdown(self):
        self.sub.destroy()
        self.pub.destroy()
        self.calls.append("shutdown")
        self.on_broken()  # bondpy calls it for its own end too


@pytest.fixture(autouse=True)
def _made():
    FakeBond.made = []


@pytest.fixture
def with_bondpy(monkeypatch):
    module = types.ModuleType("bondpy.bondpy")
    module.Bond = FakeBond
    package = types.ModuleType("bondpy")
    package.bondpy = module
    monkeypatch.setitem(sys.modules, "bondpy", package)
    monkeypatch.setitem(sys.modules, "bondpy.bondpy", module)


def logged(monkeypatch, node):
    lines = []
    logger = types.SimpleNamespace(info=lines.append, warning=lines.append)
    monkeypatch.setattr(node, "get_logger", lambda: logger)
    return lines


def test_the_node_has_a_bond_while_it_is_active(with_bondpy, make_rig, grounder, monkeypatch):
    rig = make_rig(lambda settings: grounder, bond_heartbeat_period=0.25)
    node = rig.node
    before = len(list(node.publishers)), len(list(node.subscriptions))
    assert node.trigger_configure().name == "SUCCESS" and not FakeBond.made
    assert node.trigger_activate().name == "SUCCESS"
    (bond,) = FakeBond.made
    assert (bond.topic, bond.id) == ("bond", "grounding"), "as nav2's lifecycle manager expects them"
    assert bond.calls == ["period 0.25", "timeout 4", "start"]
    lines = logged(monkeypatch, node)
    bond.on_formed()
    assert node.bond.formed
    bond.on_broken()
    assert not node.bond.formed
    assert len(lines) == 2 and "bonded" in lines[0] and "is broken" in lines[1]
    del lines[:]
    assert node.trigger_deactivate().name == "SUCCESS" and bond.calls[-1] == "shutdown"
    assert not any("broken" in line for line in lines), "the node itself broke it"
    assert node.trigger_cleanup().name == "SUCCESS"
    assert (len(list(node.publishers)), len(list(node.subscriptions))) == before
    assert node.trigger_configure().name == node.trigger_activate().name == "SUCCESS"
    assert len(FakeBond.made) == 2
    FakeBond.made[1].on_formed()
    FakeBond.made[0].on_broken()  # bondpy reports the end of the first some seconds later
    assert node.bond.formed
    node.close()
    assert FakeBond.made[1].calls[-1] == "shutdown"


def test_a_node_without_a_manager_does_not_complain(with_bondpy, make_rig, grounder, monkeypatch):
    rig = make_rig(lambda settings: grounder)
    rig.activate()
    lines = logged(monkeypatch, rig.node)
    FakeBond.made[0].on_broken()
    assert lines == []


@pytest.mark.parametrize("error", [ImportError("no symbol"), OSError("libuuid"), ModuleNotFoundError(name="smclib")])
def test_a_bondpy_that_cannot_be_imported_is_reported_and_the_node_goes_on(error, make_rig, grounder, monkeypatch):
    def find():
        raise error

    rig = make_rig(lambda settings: grounder)
    lines = logged(monkeypatch, rig.node)
    rig.node.bond = LifecycleBond(rig.node, 0.1, find)
    assert rig.node.trigger_configure().name == rig.node.trigger_activate().name == "SUCCESS"
    assert sum("no bond with the lifecycle manager, as bondpy cannot be imported" in line for line in lines) == 1


def test_a_module_that_bondpy_lacks_is_not_taken_for_bondpy(monkeypatch, tmp_path):
    (tmp_path / "bondpy").mkdir()
    (tmp_path / "bondpy" / "__init__.py").touch()
    (tmp_path / "bondpy" / "bondpy.py").write_text("import smclib_of_nowhere")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("bondpy", "bondpy.bondpy"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ModuleNotFoundError, match="smclib_of_nowhere"):
        find_bond()
    for name in ("bondpy", "bondpy.bondpy"):
        sys.modules.pop(name, None)


def test_there_is_no_bond_without_bondpy_or_with_a_period_of_zero(with_bondpy, make_rig, grounder, monkeypatch):
    rig = make_rig(lambda settings: grounder, bond_heartbeat_period=0.0)
    rig.activate()
    assert not FakeBond.made and find_bond() is FakeBond
    monkeypatch.setitem(sys.modules, "bondpy", None)
    monkeypatch.setitem(sys.modules, "bondpy.bondpy", None)
    assert find_bond() is None and not LifecycleBond(rig.node, 0.1).form()


@pytest.fixture
def manager(rig):
    """A node for the other side of a bond."""
    with BackgroundNode("lifecycle_manager", rig.domain) as made:
        yield made.node


def test_a_real_bond_is_formed_and_broken(manager, rig, until, monkeypatch):
    bondpy = pytest.importorskip("bondpy.bondpy", reason="needs bondpy: ros-DISTRO-bondpy")
    assert find_bond() is bondpy.Bond
    ended = []
    sister = bondpy.Bond(manager, "bond", "grounding", on_broken=lambda: ended.append("deactivated"))
    sister.set_heartbeat_period(0.1)
    sister.start()
    until(lambda: sister.sister_instance_id, "the node's heartbeat")
    until(lambda: rig.node.bond.formed, "the bond on the node's side")
    assert rig.node.trigger_deactivate().name == "SUCCESS"
    until(lambda: ended, "the end of the bond")
    sister.shutdown()
    # A manager that dies: twice, since bondpy declares a parameter each time.
    monkeypatch.setattr("acs_ros.node.lifecycle_bond.HEARTBEAT_TIMEOUT_S", 1.0)
    for _ in range(2):
        assert rig.node.trigger_activate().name == "SUCCESS"
        other = bondpy.Bond(manager, "bond", "grounding")
        other.set_heartbeat_period(0.1)
        other.start()
        until(lambda: rig.node.bond.formed, "the bond")
        bond = rig.node.bond._bond
        until(lambda b=bond: b.heartbeat_timer.timer.is_alive(), "the second heartbeat, from which bondpy counts")
        with other.lock:
            other.is_shutdown = True  # no heartbeat, and no word of its end
            other.condition.notify_all()
        manager.destroy_subscription(other.sub)
        until(bond.is_broken, "the missing heartbeats to be noticed")
        assert rig.node.has_parameter(TIMEOUT_PARAMETER)
        assert rig.node.trigger_deactivate().name == "SUCCESS"

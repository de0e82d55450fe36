from __future__ import annotations

from dataclasses import replace

import pytest

from acs_ros.diagnostics.memory import Memory
from acs_ros.diagnostics.statistics import CameraProblems, Rates, StatisticsSnapshot
from acs_ros.diagnostics.status import ERROR, OK, WARN, Input, Situation, StatusLimits, findings, make_status, verdict

AT = Situation(
    state="active",
    queries=("key",),
    inputs=(Input("/camera/image", 1, 99.0),),
    query_topic="/grounding/query",
    image_timeout=5.0,
    model="tiny",
    selector="acs-free",
    device="cpu",
    now=100.0,
    active_since=50.0,
)
NEVER = Input("/camera/image", 1)
FINE = StatisticsSnapshot(images=3, answered=2, last_image=99.0, last_answer=99.5)


@pytest.mark.parametrize(
    ("facts", "situation", "level", "said"),
    [
        ({}, {}, OK, "answering 'key'"),
        ({}, {"state": "unconfigured"}, WARN, "no model is loaded"),
        ({"setup_problem": "no parameter smaples"}, {}, WARN, "no parameter smaples"),
        ({"setup_problem": "no parameter smaples"}, {"state": "configuring"}, WARN, "no parameter smaples"),
        ({"setup_problem": "no parameter smaples", "last_failure": "full"}, {}, ERROR, "full"),
        ({"name_problem": "1 more node", "setup_problem": "no parameter"}, {}, WARN, "1 more node"),
        ({"load_problem": "no such folder"}, {"state": "unconfigured"}, ERROR, "no such folder"),
        ({}, {"state": "configuring"}, OK, "loading the model tiny"),
        ({}, {"state": "inactive"}, WARN, "not active"),
        ({}, {"state": "finalized"}, WARN, "finalized"),
        ({}, {"active_since": 96.0, "inputs": (NEVER,)}, OK, "waiting for the first image on /camera/image"),
        ({}, {"inputs": (Input("/camera/image", 0),)}, ERROR, "nobody publishes there"),
        ({}, {"inputs": (Input("/camera/image", 1, 90.0),)}, ERROR, "sends nothing"),
        ({}, {"inputs": (*AT.inputs, Input("/right/image", 0, 90.0))}, ERROR, "no images on /right/image"),
        ({}, {"inputs": (Input("/camera/image", 1, 60.0, 99.0),)}, OK, "answering 'key'"),
        ({}, {"inputs": (NEVER,), "listening": False, "mode": "on_demand"}, OK, "ready: waiting to be asked"),
        ({"cameras": {"": CameraProblems(image_qos="QoS clash")}}, {"inputs": (NEVER,)}, ERROR, "QoS clash"),
        ({"cameras": {"": CameraProblems(image_qos="QoS clash")}}, {}, OK, "answering"),
        ({"cameras": {"": CameraProblems(image="truncated")}}, {}, WARN, "truncated"),
        ({"last_query_problem": "too long"}, {}, WARN, "still asking for 'key'"),
        ({"last_query_problem": "too long"}, {"queries": ()}, WARN, "nothing is asked"),
        ({}, {"queries": ()}, WARN, "publish a phrase on /grounding/query"),
        ({"query_qos_problem": "QoS clash"}, {"queries": ()}, ERROR, "QoS clash"),
        ({"last_failure": "out of memory"}, {}, ERROR, "out of memory"),
        ({"answer_problem": "every response was unparseable"}, {}, WARN, "every response was unparseable"),
        ({"last_abstention": "'key': it is not there"}, {}, OK, "no box for 'key': it is not there"),
        ({"output_qos_problem": "QoS clash"}, {}, WARN, "QoS clash"),
        ({"working_since": 97.5}, {}, OK, "for 2.5 s"),
        ({"last_answer": None}, {}, OK, "waiting for the next image"),
        ({"working_since": 30.0}, {}, ERROR, "for 70 s: it hangs"),
        ({"working_since": 30.0}, {"limits": StatusLimits(hang_after=100.0)}, OK, "for 70.0 s"),
        ({}, {"held": True}, WARN, "paused"),
        ({}, {"queries": (), "mode": "on_demand"}, OK, "ready"),
        ({"clock_problem": "the clock jumped"}, {}, WARN, "the clock jumped"),
        ({"cameras": {"": CameraProblems(stamp="stamped 9 s ago")}}, {}, ERROR, "stamped 9 s ago"),
        ({"cameras": {"": CameraProblems(depth="no depth image")}}, {}, WARN, "no place in space: no depth image"),
        ({"last_skipped": "2 of 10 samples were left out."}, {}, WARN, "cut short: 2 of 10"),
        ({"loading_since": 88.0}, {"state": "configuring", "memory": Memory(2.5)}, OK, "for 12 s, 2.5 GB"),
    ],
)
def test_the_verdict_names_the_first_reason(facts, situation, level, said):
    got_level, message = verdict(replace(FINE, **facts), replace(AT, **situation))
    assert got_level == level and said in message


def test_a_status_holds_every_counter():
    status = make_status("/robot/grounding", replace(FINE, working_since=99.0, last_latency_ms=12.34), AT)
    values = {v.key: v.value for v in status.values}
    assert status.name == "grounding: grounding" and status.hardware_id == "cpu", "as diagnostic_updater names it"
    assert make_status("/robot/grounding", FINE, AT, use_fqn=True).name == "/robot/grounding: grounding"
    assert values["node"] == "/robot/grounding"
    assert (values["images"], values["answered"], values["busy_s"]) == ("3", "2", "1.00")
    assert (values["last_latency_ms"], values["last_image_age_s"], values["query"]) == ("12.34", "1.00", "key")


SLOW = Rates(input_hz=9.0, answer_hz=0.4, latency_p50_ms=900.0, latency_p95_ms=2100.0, unparseable_share=0.4)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (StatusLimits(), ""),
        (StatusLimits(input_rate=10.0), "only 9.0 images per second, less than warn_input_rate = 10"),
        (StatusLimits(answer_rate=0.5), "only 0.40 answers per second"),
        (StatusLimits(latency=2.0), "latency p95 is 2.10 s"),
        (StatusLimits(unparseable=0.3), "40% of the last responses gave no box"),
        (StatusLimits(host_memory_gb=3.0), "3.5 GB of host memory"),
        (StatusLimits(gpu_memory=0.9), "95% of the GPU's memory"),
    ],
)
def test_each_threshold_warns_by_its_name(limits, said):
    at = replace(AT, rates=SLOW, memory=Memory(3.5, 20.0, 0.95), limits=limits)
    level, message = verdict(FINE, at)
    assert (level == WARN) is bool(said) and said in message
    values = {v.key: v.value for v in make_status("/grounding", FINE, at).values}
    assert (values["latency_p95_ms"], values["host_memory_gb"], values["gpu_memory_gb"]) == ("2100.00", "3.50", "20.00")


MIXED = "simulated and wall time are mixed"
LEFT, RIGHT = Input("/left/image", 1, 99.0, name="left"), Input("/right/image", 1, 60.0, name="right")


def problems(**given) -> dict:
    return {"cameras": {"": CameraProblems(**given)}}


@pytest.mark.parametrize(
    ("facts", "situation"),
    [
        ({}, {}),
        ({"last_abstention": "'key': it is not there"}, {}),
        ({"last_failure": "out of memory", "last_query_problem": "too long"}, {}),
        ({}, {"inputs": (Input("/camera/image", 0, 10.0),)}),
        ({}, {"queries": ()}),
        ({"output_qos_problem": "QoS clash", "clock_problem": "the clock jumped"}, {"held": True}),
        ({"working_since": 3.0}, {}),
    ],
)
def test_mixed_clocks_are_the_first_line_whatever_else_is_wrong(facts, situation):
    mixed = replace(FINE, **facts, **problems(stamp=MIXED, clocks_mixed=True, depth="no depth image", image="broken"))
    level, message = verdict(mixed, replace(AT, **situation))
    assert message == MIXED and level >= WARN
    no_clock = replace(FINE, **facts)
    assert "nothing is published on /clock" in verdict(no_clock, replace(AT, no_clock=True, **situation))[1]


@pytest.mark.parametrize(
    ("facts", "situation", "said"),
    [
        (problems(stamp="stamped 9 s ago"), {}, "stamped 9 s ago"),
        (problems(depth="no depth image"), {}, "no depth image"),
        (problems(depth="no camera info came", depth_qos="QoS clash"), {}, "no place in space: QoS clash"),
        ({"clock_problem": "the clock jumped"}, {}, "the clock jumped"),
        ({"output_qos_problem": "QoS clash"}, {}, "QoS clash"),
        ({"last_skipped": "2 of 10"}, {}, "cut short"),
        ({}, {"limits": StatusLimits(latency=2.0)}, "latency p95"),
        ({}, {"limits": StatusLimits(unparseable=0.3)}, "gave no box"),
        ({}, {"inputs": (Input("/camera/image", 0, 10.0),)}, "nobody publishes there"),
        ({"last_failure": "out of memory"}, {}, "out of memory"),
    ],
)
def test_nothing_hides_behind_an_abstention(facts, situation, said):
    silent = replace(FINE, last_abstention="'key': it is not there", **facts)
    level, message = verdict(silent, replace(AT, rates=SLOW, **situation))
    assert said in message and level > OK


def test_the_level_is_that_of_the_worst_and_the_rest_is_told_as_values():
    facts = replace(FINE, last_failure="out of memory", **problems(stamp="stamped 9 s ago", depth="no depth image"))
    status = make_status("/grounding", facts, AT)
    assert status.level == ERROR and "out of memory" in status.message
    values = {v.key: v.value for v in status.values}
    assert values["other_problems"] == "stamped 9 s ago; no place in space: no depth image"
    mixed = replace(facts, **problems(stamp=MIXED, clocks_mixed=True))
    status = make_status("/grounding", mixed, AT)
    assert (status.level, status.message) == (ERROR, MIXED)
    assert "out of memory" in {v.key: v.value for v in status.values}["other_problems"]
    assert {v.key: v.value for v in make_status("/grounding", FINE, AT).values}["other_problems"] == ""


def test_an_abstention_is_not_hidden_by_a_warning():
    """A planner saw that there is no depth, and not that nothing was found."""
    facts = replace(FINE, cameras={"": CameraProblems(depth="no depth image")}, last_abstention="'key': not there")
    status = make_status("/grounding", facts, AT)
    assert (status.level, status.message) == (WARN, "no place in space: no depth image")
    assert {v.key: v.value for v in status.values}["other_problems"] == "no box for 'key': not there"


def test_a_reason_is_that_of_its_camera():
    facts = replace(FINE, cameras={"left": CameraProblems(image="broken encoding", image_qos="QoS clash")})
    found = findings(facts, replace(AT, inputs=(LEFT, RIGHT)))
    assert [text for _, text in found[:2]] == [
        "no images on /right/image for 5 s: a publisher is there, but sends nothing",
        "the last image on /left/image could not be used: broken encoding",
    ]
    facts = replace(FINE, cameras={"right": CameraProblems(depth="no camera info came")})
    inputs = LEFT, replace(RIGHT, last_image=99.0)
    assert verdict(facts, replace(AT, inputs=inputs))[1] == "right: no place in space: no camera info came"
    values = {v.key: v.value for v in make_status("/grounding", facts, AT).values}
    assert values["depth_problem"] == "right: no camera info came"


def test_a_publisher_that_is_gone_is_no_reason():
    facts = replace(FINE, **problems(image_qos="QoS clash"))
    level, message = verdict(facts, replace(AT, inputs=(Input("/camera/image", 0, 10.0),)))
    assert level == ERROR and "nobody publishes there" in message


def test_a_camera_that_is_not_listened_to_is_not_silent():
    idle = Input("/right/image", 1, 10.0, name="right", listening=False)
    assert verdict(FINE, replace(AT, inputs=(*AT.inputs, idle)))[1] == "answering 'key'"

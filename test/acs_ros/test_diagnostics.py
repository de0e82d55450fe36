from __future__ import annotations

from dataclasses import replace

import pytest

from acs_ros.diagnostics import ERROR, OK, WARN, Input, Limits, Situation, make_status, verdict
from acs_ros.ledger import Facts, Rates
from acs_ros.memory import Memory

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
FINE = Facts(images=3, answered=2, last_image=99.0, last_answer=99.5)


@pytest.mark.parametrize(
    ("facts", "situation", "level", "said"),
    [
        ({}, {}, OK, "answering 'key'"),
        ({}, {"state": "unconfigured"}, WARN, "no model is loaded"),
        ({"load_problem": "no such folder"}, {"state": "unconfigured"}, ERROR, "no such folder"),
        ({}, {"state": "configuring"}, OK, "loading the model tiny"),
        ({}, {"state": "inactive"}, WARN, "not active"),
        ({}, {"state": "finalized"}, WARN, "finalized"),
        ({}, {"active_since": 96.0, "inputs": (NEVER,)}, OK, "waiting for the first image on /camera/image"),
        ({}, {"inputs": (Input("/camera/image", 0),)}, WARN, "nobody publishes there"),
        ({}, {"inputs": (Input("/camera/image", 1, 90.0),)}, WARN, "sends nothing"),
        ({}, {"inputs": (*AT.inputs, Input("/right/image", 0, 90.0))}, WARN, "no images on /right/image"),
        ({}, {"inputs": (Input("/camera/image", 1, 60.0, 99.0),)}, OK, "answering 'key'"),
        ({}, {"inputs": (NEVER,), "listening": False, "mode": "on_demand"}, OK, "ready: waiting to be asked"),
        ({"image_qos_problem": "QoS clash"}, {"inputs": (NEVER,)}, ERROR, "QoS clash"),
        ({"image_qos_problem": "QoS clash"}, {}, OK, "answering"),
        ({"last_image_problem": "truncated"}, {}, WARN, "truncated"),
        ({"last_query_problem": "too long"}, {}, WARN, "still asking for 'key'"),
        ({"last_query_problem": "too long"}, {"queries": ()}, WARN, "nothing is asked"),
        ({}, {"queries": ()}, WARN, "publish a phrase on /grounding/query"),
        ({"query_qos_problem": "QoS clash"}, {"queries": ()}, ERROR, "QoS clash"),
        ({"last_failure": "out of memory"}, {}, ERROR, "out of memory"),
        ({"last_abstention": "every response was unparseable"}, {}, WARN, "every response was unparseable"),
        ({"output_qos_problem": "QoS clash"}, {}, WARN, "QoS clash"),
        ({"working_since": 97.5}, {}, OK, "for 2.5 s"),
        ({"last_answer": None}, {}, OK, "waiting for the next image"),
        ({"working_since": 30.0}, {}, ERROR, "for 70 s: it hangs"),
        ({"working_since": 30.0}, {"limits": Limits(hang_after=100.0)}, OK, "for 70.0 s"),
        ({}, {"held": True}, WARN, "paused"),
        ({}, {"queries": (), "mode": "on_demand"}, OK, "ready"),
        ({"clock_problem": "the clock jumped"}, {}, WARN, "the clock jumped"),
        ({"stamp_problem": "stamped 9 s ago"}, {}, WARN, "stamped 9 s ago"),
        ({"depth_problem": "no depth image"}, {}, WARN, "no place in space: no depth image"),
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
    assert status.name == "/robot/grounding: grounding" and status.hardware_id == "cpu"
    assert (values["images"], values["answered"], values["busy_s"]) == ("3", "2", "1.00")
    assert (values["last_latency_ms"], values["last_image_age_s"], values["query"]) == ("12.34", "1.00", "key")


SLOW = Rates(input_hz=9.0, answer_hz=0.4, latency_p50_ms=900.0, latency_p95_ms=2100.0, unparseable_share=0.4)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(), ""),
        (Limits(input_rate=10.0), "only 9.0 images per second, less than warn_input_rate = 10"),
        (Limits(answer_rate=0.5), "only 0.40 answers per second"),
        (Limits(latency=2.0), "latency p95 is 2.10 s"),
        (Limits(unparseable=0.3), "40% of the last responses gave no box"),
        (Limits(host_memory_gb=3.0), "3.5 GB of host memory"),
        (Limits(gpu_memory=0.9), "95% of the GPU's memory"),
    ],
)
def test_each_threshold_warns_by_its_name(limits, said):
    at = replace(AT, rates=SLOW, memory=Memory(3.5, 20.0, 0.95), limits=limits)
    level, message = verdict(FINE, at)
    assert (level == WARN) is bool(said) and said in message
    values = {v.key: v.value for v in make_status("/grounding", FINE, at).values}
    assert (values["latency_p95_ms"], values["host_memory_gb"], values["gpu_memory_gb"]) == ("2100.00", "3.50", "20.00")

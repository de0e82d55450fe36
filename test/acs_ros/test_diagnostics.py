from __future__ import annotations

from dataclasses import replace

import pytest

from acs_ros.diagnostics import ERROR, OK, WARN, Facts, Ledger, Situation, make_status, verdict

AT = Situation(
    state="active",
    query="key",
    image_topic="/camera/image",
    query_topic="/grounding/query",
    image_publishers=1,
    image_timeout=5.0,
    model="tiny",
    selector="acs-free",
    device="cpu",
    now=100.0,
    active_since=50.0,
)
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
        ({"last_image": None}, {"active_since": 96.0}, OK, "waiting for the first image"),
        ({"last_image": None}, {"image_publishers": 0}, WARN, "nobody publishes there"),
        ({"last_image": 90.0}, {}, WARN, "sends nothing"),
        ({"last_image": None, "image_qos_problem": "QoS clash"}, {}, ERROR, "QoS clash"),
        ({"image_qos_problem": "QoS clash"}, {}, OK, "answering"),
        ({"last_image_problem": "truncated"}, {}, WARN, "truncated"),
        ({"last_query_problem": "too long"}, {}, WARN, "still asking for 'key'"),
        ({"last_query_problem": "too long"}, {"query": ""}, WARN, "nothing is asked"),
        ({}, {"query": ""}, WARN, "publish a phrase on /grounding/query"),
        ({"query_qos_problem": "QoS clash"}, {"query": ""}, ERROR, "QoS clash"),
        ({"last_failure": "out of memory"}, {}, ERROR, "out of memory"),
        ({"last_abstention": "every response was unparseable"}, {}, WARN, "every response was unparseable"),
        ({"output_qos_problem": "QoS clash"}, {}, WARN, "QoS clash"),
        ({"working_since": 97.5}, {}, OK, "for 2.5 s"),
        ({"last_answer": None}, {}, OK, "waiting for the next image"),
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
    assert (values["last_latency_ms"], values["last_image_age_s"], values["query"]) == ("12.3", "1.00", "key")


def test_the_ledger_counts_and_remembers(result):
    ledger = Ledger(clock=lambda: 5.0)
    ledger.image_came("truncated")
    ledger.image_came()
    ledger.failure("out of memory")
    ledger.work_began()
    assert ledger.facts().working_since == 5.0
    ledger.work_ended()
    ledger.result_sent(result("key", reason="nothing there"), 7.0)
    facts = ledger.facts()
    assert (facts.images, facts.bad_images, facts.failed, facts.answered, facts.abstained) == (2, 1, 1, 1, 1)
    assert (facts.last_image_problem, facts.last_failure, facts.last_abstention) == ("", "", "nothing there")
    assert (facts.last_image, facts.last_latency_ms, facts.working_since) == (5.0, 7.0, None)
    ledger.result_sent(result("key"), 8.0)
    assert ledger.facts().last_abstention == "" and ledger.facts().abstained == 1


def test_a_new_activation_keeps_the_counters():
    ledger = Ledger()
    ledger.image_came("truncated")
    ledger.new_activation()
    facts = ledger.facts()
    assert (facts.images, facts.last_image, facts.last_image_problem) == (1, None, "")

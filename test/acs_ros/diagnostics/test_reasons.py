"""Every text of the status on /diagnostics, with the situation that produces it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from reason_parts import told, unknown, without_row

from acs_core.types import UNPARSEABLE, GroundingResult, Response, ScoreKind
from acs_ros.diagnostics.memory import Memory
from acs_ros.diagnostics.statistics import CameraProblems, NodeStatistics, Rates, StatisticsSnapshot
from acs_ros.diagnostics.status import Input, Situation, StatusLimits, verdict

FILES = ("acs_ros/diagnostics/statistics.py", "acs_ros/diagnostics/status.py")
NO_REASONS = ("… x … pixels, … image tokens",)  # a value, not a message
AT = Situation(
    state="active",
    queries=("key",),
    inputs=(Input("/image", 1, 99.0),),
    query_topic="/grounding/query",
    image_timeout=5.0,
    model="tiny",
    selector="acs-free",
    device="cpu",
    now=100.0,
    active_since=50.0,
    rates=Rates(input_hz=9.0, answer_hz=0.4, latency_p95_ms=2100.0, unparseable_share=0.4),
    memory=Memory(3.5, 20.0, 0.95),
)
FINE = StatisticsSnapshot(images=3, answered=2, last_image=99.0, last_answer=99.5)


def status(facts=None, *, camera=None, **situation):
    """The message on /diagnostics."""
    known = replace(FINE, **(facts or {}), cameras={"": CameraProblems(**(camera or {}))})
    return verdict(known, replace(AT, **situation))[1]


def slow(**limits):
    return status(limits=StatusLimits(**limits))


def abstained(**changes):
    """The message after an answer without a box."""
    statistics = NodeStatistics()
    result = GroundingResult("key", (8, 6), (), (), (), "greedy", ScoreKind.CALIBRATED, "m", None, 0)
    statistics.results_sent([replace(result, **changes)], 1.0)
    return verdict(replace(statistics.snapshot(), last_image=99.0), AT)[1]


# (what happens, the text that it gives)
ROWS = (
    # --- states
    (lambda: status({"load_problem": "no such folder"}, state="unconfigured"), "no model: no such folder"),
    (
        lambda: status({"loading_since": 88.0}, state="configuring"),
        "loading the model tiny for 12 s, 3.5 GB of host memory so far",
    ),
    (
        lambda: status(state="unconfigured"),
        "no model is loaded: configure the node (ros2 lifecycle set ... configure)",
    ),
    (
        lambda: status(state="inactive"),
        "the model is loaded, but the node is not active (ros2 lifecycle set ... activate)",
    ),
    (lambda: status(state="finalized"), "the node is finalized"),
    (lambda: status(held=True), "paused: call ~/pause with data: false to go on"),
    (
        lambda: status({"working_since": 30.0}),
        "the model has been working on one frame for 70 s: it hangs, or the machine is too slow",
    ),
    (lambda: status({"working_since": 98.0}), "the model has been working on a frame for 2.0 s"),
    (lambda: status(inputs=(Input("/image", 1),), active_since=99.0), "waiting for the first image on /image"),
    (lambda: status(mode="on_demand"), "ready: waiting to be asked"),
    (lambda: status({"last_answer": None}), "waiting for the next image"),
    # --- problems
    (
        lambda: status(no_clock=True),
        "use_sim_time is true, but nothing is published on /clock: start the simulator, or play the bag with --clock",
    ),
    (
        lambda: status(inputs=(Input("/image", 1, 90.0),)),
        "no images on /image for 5 s: a publisher is there, but sends nothing",
    ),
    (lambda: status(inputs=(Input("/image", 0, 90.0),)), "no images on /image for 5 s: nobody publishes there"),
    (
        lambda: status(inputs=(Input("/image", 1, 90.0, other_type="sensor_msgs/msg/PointCloud2"),)),
        "no images on /image for 5 s: it is published as sensor_msgs/msg/PointCloud2, not as image_transport says",
    ),
    (
        lambda: status(camera={"image": "it has no data"}),
        "the last image on /image could not be used: it has no data",
    ),
    (
        lambda: status({"last_query_problem": "too long"}),
        "the last query was rejected (still asking for 'key'): too long",
    ),
    (
        lambda: status({"last_query_problem": "too long"}, queries=()),
        "the last query was rejected (nothing is asked): too long",
    ),
    (lambda: status({"last_failure": "broken"}), "the last frame could not be answered: broken"),
    (lambda: status(queries=()), "no query: publish a phrase on /grounding/query"),
    (lambda: status(camera={"depth": "no depth image"}), "no place in space: no depth image"),
    (
        lambda: verdict(
            replace(FINE, cameras={"left": CameraProblems(depth="no depth image")}),
            replace(AT, inputs=(Input("/left/image", 1, 99.0, name="left"),)),
        )[1],
        "left: no place in space: no depth image",
    ),
    (
        lambda: slow(unparseable=0.3),
        "40% of the last responses gave no box, nor said that there is none (warn_unparseable)",
    ),
    (
        lambda: slow(input_rate=10.0),
        "only 9.0 images per second, less than warn_input_rate = 10 (of the slowest camera)",
    ),
    (lambda: slow(answer_rate=0.5), "only 0.40 answers per second, less than warn_answer_rate = 0.5"),
    (lambda: slow(latency=2.0), "latency p95 is 2.10 s, above warn_latency = 2"),
    (lambda: slow(host_memory_gb=3.0), "3.5 GB of host memory, above warn_host_memory = 3"),
    (lambda: slow(gpu_memory=0.9), "95% of the GPU's memory is in use (warn_gpu_memory)"),
    (
        lambda: abstained(skipped=("5 of 10 responses were not begun: the deadline is 5 ms",)),
        "answers are cut short: 5 of 10 responses were not begun: the deadline is 5 ms",
    ),
    (
        lambda: abstained(skipped=("5 of 10 responses were not needed: the first 5 agree",)),
        "no box for 'key': no box was good enough",
    ),
    (lambda: abstained(reason="it is not there"), "no box for 'key': it is not there"),
    (
        lambda: abstained(reason="no box could be read", responses=(Response("?", 0, True, UNPARSEABLE),)),
        "no answer for 'key': no box could be read",
    ),
    (
        lambda: status(camera={"image_qos": "QoS clash"}, inputs=(Input("/image", 1, 90.0),)),
        "no images on /image for 5 s: QoS clash",
    ),
    (lambda: status({"query_qos_problem": "QoS clash"}, queries=()), "QoS clash"),
)


@pytest.mark.parametrize(("happens", "expected"), ROWS, ids=[row[1][:70] for row in ROWS])
def test_the_reason_names_the_cause(happens, expected):
    text = happens()
    assert told(expected, text), text


def test_the_table_has_every_text():
    assert without_row(FILES, [expected for _, expected in ROWS], NO_REASONS) == []
    assert unknown(FILES, NO_REASONS) == []

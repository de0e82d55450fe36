"""cv_bridge: the installed one where it is usable, else a stand-in that follows its documentation."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import Image

from acs_ros.conversions import bridge, bridge_check
from acs_ros.conversions.bridge import BRIDGED_ENCODINGS, bridge_state, usable_bridge
from acs_ros.conversions.images import ENCODINGS, decode_unbridged, image_to_rgb

STAND_INS = Path(__file__).resolve().parents[2] / "helpers" / "stand_ins"
# What CvBridge converts to rgb8: cv_bridge's own table, less the typed encodings, which have no colour.
TABLE = [
    *("mono8", "mono16", "bgr8", "rgb8", "bgra8", "rgba8", "bgr16", "rgb16", "bgra16", "rgba16"),
    *("bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8"),
    *("bayer_rggb16", "bayer_bggr16", "bayer_gbrg16", "bayer_grbg16"),
    *("yuv422", "yuv422_yuy2"),
]


def forget():
    bridge_state.cache_clear()
    usable_bridge.cache_clear()
    sys.modules.pop("cv_bridge", None)


@pytest.fixture
def stand_in(monkeypatch):
    """Installs the stand-in, with a fault if one is given."""
    monkeypatch.syspath_prepend(str(STAND_INS))

    def install(fault=""):
        monkeypatch.setenv("CV_BRIDGE_FAULT", fault)
        forget()
        return bridge_state()

    yield install
    monkeypatch.undo()
    forget()


@pytest.fixture(scope="module")
def converter():
    """Any usable CvBridge: the installed one, else the stand-in."""
    forget()
    found = usable_bridge()
    if found is not None:
        yield found
    else:
        sys.path.insert(0, str(STAND_INS))
        try:
            yield importlib.import_module("cv_bridge").CvBridge()
        finally:
            sys.path.remove(str(STAND_INS))
    forget()


def test_the_table_is_that_of_cv_bridge():
    assert set(TABLE) == BRIDGED_ENCODINGS and set(TABLE) < set(ENCODINGS)


@pytest.mark.parametrize("encoding", TABLE)
@given(st.integers(2, 9), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_both_ways_give_the_same_pixels(converter, encoding, height, half_width, seed):
    if encoding == "yuv422_yuy2" and not _knows(converter, encoding):
        pytest.skip("an older cv_bridge")
    msg = bridge_check.sample(encoding, height, 2 * half_width, seed)
    theirs = np.asarray(converter.imgmsg_to_cv2(msg, "rgb8")).astype(int)
    ours = decode_unbridged(msg).astype(int)
    assert theirs.shape == ours.shape == (height, 2 * half_width, 3)
    assert np.abs(theirs - ours).max() <= (1 if encoding.endswith("16") else 0)


def _knows(converter, encoding):
    try:
        converter.encoding_to_cvtype2(encoding)
    except Exception:
        return False
    return True


def test_an_installed_one_is_used(stand_in):
    state = stand_in()
    assert (state.installed, state.problem, state.note) == (True, "", "")
    assert state.encodings == BRIDGED_ENCODINGS
    msg = bridge_check.sample("rgb8")
    assert np.array_equal(image_to_rgb(msg), decode_unbridged(msg))
    assert sys.modules["cv_bridge"].CALLS == ["rgb8"]


def changed(**fields):
    return lambda msg: [setattr(msg, name, value) for name, value in fields.items()]


def padded(msg):
    """Rows with 3 bytes more than their pixels, a multiple of nothing."""
    rows = np.frombuffer(bytes(msg.data), np.uint8).reshape(msg.height, -1)
    msg.data = np.pad(rows, ((0, 0), (0, 5))).tobytes()
    msg.step += 5


NOT_FOR_IT = {
    "big endian": ("mono16", changed(is_bigendian=1)),
    "8 bits called big endian": ("rgb8", changed(is_bigendian=1)),
    "padding of broken pixels": ("rgb8", padded),
    "no padding after the last row": ("mono8", lambda msg: (padded(msg), setattr(msg, "data", msg.data[:-5]))),
    "uyvy": ("yuv422", changed(encoding="uyvy")),
    "8UC1 as colour": ("mono8", changed(encoding="8UC1")),
    "nv12": ("mono8", changed(encoding="nv12", height=4)),
}


def test_what_it_reads_wrongly_or_not_at_all_is_decoded_without_it(stand_in):
    stand_in()
    for encoding, change in NOT_FOR_IT.values():
        msg = bridge_check.sample(encoding)
        change(msg)
        assert np.array_equal(image_to_rgb(msg), decode_unbridged(msg))
    twelve_bits = Image(height=1, width=1, encoding="mono16", step=2, data=(4095).to_bytes(2, "little"))
    assert image_to_rgb(twelve_bits, bits=12).max() == 255
    assert not getattr(sys.modules.get("cv_bridge"), "CALLS", [])


BROKEN = {
    "numpy": "it was built against numpy 1, and numpy ",
    "crash": "it was built against numpy 1, and numpy 2 is installed: a trial of it ended with SIGABRT",
    "opencv": "it was built against another OpenCV than the ",
}


@pytest.mark.parametrize("fault", BROKEN)
def test_one_built_for_other_libraries_is_found_out_and_not_used(stand_in, fault):
    state = stand_in(fault)
    assert state.installed and not state.encodings and state.problem.startswith(BROKEN[fault])
    assert state.note.startswith("cv_bridge is installed, but cannot be used: it was built against ")
    msg = bridge_check.sample("bgr8")
    assert usable_bridge() is None and np.array_equal(image_to_rgb(msg), decode_unbridged(msg))
    assert "cv_bridge" not in sys.modules  # not even imported here


@pytest.mark.parametrize(
    ("fault", "lacks", "problem"),
    [
        ("old", {"yuv422_yuy2"}, ""),
        ("pixels", {"bgr8", "bgr16"}, "bgr16: its pixels are wrong by up to "),
    ],
)
def test_it_is_used_for_the_encodings_that_it_converts_well(stand_in, fault, lacks, problem):
    state = stand_in(fault)
    assert state.encodings == BRIDGED_ENCODINGS - lacks and state.problem.startswith(problem)
    for encoding in TABLE:
        msg = bridge_check.sample(encoding)
        apart = np.abs(image_to_rgb(msg).astype(int) - decode_unbridged(msg).astype(int)).max()
        assert apart <= (1 if encoding.endswith("16") else 0)
    assert set(sys.modules["cv_bridge"].CALLS) == BRIDGED_ENCODINGS - lacks


def test_an_image_that_it_refuses_is_decoded_without_it(stand_in, monkeypatch):
    stand_in()

    def refuse(self, msg, encoding):
        raise TypeError("no")

    monkeypatch.setattr(type(usable_bridge()), "imgmsg_to_cv2", refuse)
    msg = bridge_check.sample("bgra8")
    assert np.array_equal(image_to_rgb(msg), decode_unbridged(msg))


def test_without_it_nothing_is_tried(monkeypatch):
    forget()
    monkeypatch.setattr(bridge.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(bridge, "subprocess", SimpleNamespace())
    assert bridge_state() == bridge.BridgeState(False) and usable_bridge() is None
    forget()


@pytest.mark.parametrize(
    ("exception", "problem"),
    [
        (bridge.subprocess.TimeoutExpired("python", 1), "a trial of it did not end within 60 s"),
        (OSError("no more processes"), "it could not be tried: no more processes"),
    ],
)
def test_a_trial_that_fails_itself(monkeypatch, exception, problem):
    def run(*_, **__):
        raise exception

    forget()
    monkeypatch.setattr(bridge.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(bridge.subprocess, "run", run)
    assert bridge_state() == bridge.BridgeState(True, problem=problem)
    forget()


def test_the_search_path_of_the_trial_is_that_of_the_node(stand_in):
    """A package in a folder that only this process has in sys.path is found."""
    assert str(STAND_INS) not in os.environ.get("PYTHONPATH", "") and stand_in().encodings

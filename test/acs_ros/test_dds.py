from __future__ import annotations

import xml.etree.ElementTree as ET

from acs_ros.dds import PROFILE_VARIABLE, apply_profile, profile_path

PIECE_BYTES = 65_500  # Fast DDS sends larger messages in pieces of at most this size
CAMERAS = 8


def test_the_users_own_profile_stays_in_force():
    env = {PROFILE_VARIABLE: "/mine.xml"}
    assert apply_profile(env) == "/mine.xml" and apply_profile({}) == str(profile_path())


def test_the_queue_holds_what_full_segments_of_many_cameras_hold():
    """With the default of 512 places, a flood of frames pushed out the requests of services."""
    text = profile_path().read_text().replace('xmlns="http://www.eprosima.com"', "")
    transport = next(t for t in ET.fromstring(text).iter("transport_descriptor") if t.findtext("type") == "SHM")
    places, segment = (
        int(transport.findtext("port_queue_capacity", "512")),
        int(transport.findtext("segment_size", "0")),
    )
    assert places >= CAMERAS * segment / PIECE_BYTES

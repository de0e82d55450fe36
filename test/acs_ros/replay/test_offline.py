from __future__ import annotations

import numpy as np
import pytest
from sensor_msgs.msg import Image

from acs_core.errors import DeviceMemoryError
from acs_ros.bags.bags import BagWriter
from acs_ros.bags.reader import Bag
from acs_ros.replay.contents import choose_topics, read_contents
from acs_ros.replay.journal import AnswerJournal
from acs_ros.replay.offline import OfflineRun
from acs_ros.replay.replies import Fate
from acs_ros.replay.schedule import GroundTruth, make_schedule
from acs_ros.replay.settings import make_settings


@pytest.fixture
def ask(grounder, tmp_path):
    """Asks ``query`` of every frame of a bag; answers stay in one folder."""

    def run(path, query="key", should_stop=lambda: False, **parameters):
        settings = make_settings(None, parameters)
        with Bag(path) as bag, AnswerJournal(tmp_path, {"grounder": "fake"}) as journal:
            topics = choose_topics(bag.topics, query="")
            plan = make_schedule(read_contents(bag, topics), GroundTruth({}), query, None)
            offline = OfflineRun(grounder, settings, journal, should_stop)
            return offline.run(bag, topics, plan), offline.resumed

    return run


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("compressed", [False, True])
def test_every_frame_is_asked_in_order(make_bag, ask, grounder, storage, compressed):
    replies, resumed = ask(make_bag(storage=storage, compressed=compressed), "key; cup", samples=3, seed=5)
    assert [f.fate for f in replies.frames] == [Fate.ANSWERED] * 4 and not replies.stopped and not resumed
    assert [(f.phrases, [k.result.phrase for k in f.kept]) for f in replies.frames] == [
        (("key", "cup"), ["key", "cup"])
    ] * 4
    assert all(f.latency_ms > 0 for f in replies.frames)
    shown = [round(float(image.mean())) for image, phrase, _ in grounder.calls if phrase == "key"]
    assert all(abs(mean - 10 * i) <= 2 for i, mean in enumerate(shown))
    sampling = grounder.calls[0][2]["sampling"]
    assert (sampling.num_samples, sampling.seed) == (3, 5)


def test_what_was_answered_is_not_asked_again(make_bag, ask, grounder):
    bag = make_bag()
    first, _ = ask(bag)
    again, resumed = ask(bag)
    assert len(grounder.calls) == resumed == 4 and again == first
    _, resumed = ask(bag, "key; cup")  # only what is new
    assert [phrase for _, phrase, _ in grounder.calls[4:]] == ["cup"] * 4 and resumed == 4


def test_a_run_that_is_stopped_keeps_what_it_has(make_bag, ask, grounder):
    bag = make_bag()
    replies, _ = ask(bag, should_stop=lambda: len(grounder.calls) >= 2)
    assert replies.stopped
    assert [f.fate for f in replies.frames] == [Fate.ANSWERED] * 2 + [Fate.NOT_REACHED] * 2
    replies, resumed = ask(bag)
    assert resumed == 2 and replies.count(Fate.ANSWERED) == 4


def test_a_call_that_is_stopped_is_no_answer(make_bag, ask, grounder):
    grounder.gate.clear()  # every call waits until it is stopped
    asked = iter([False, True])
    replies, _ = ask(make_bag(), should_stop=lambda: next(asked, True))
    assert replies.stopped and replies.count(Fate.NOT_REACHED) == 4


@pytest.mark.parametrize(
    ("error", "said"),
    [(DeviceMemoryError("cuda:0 has no room"), "cuda:0 has no room"), (RuntimeError("boom"), "RuntimeError: boom")],
)
def test_an_error_is_that_frames_own_and_is_tried_again(make_bag, ask, grounder, error, said):
    bag = make_bag()
    grounder.error = error
    replies, _ = ask(bag)
    assert replies.count(Fate.FAILED) == 4 and replies.frames[0].kept[0].problem == said
    grounder.error = None
    replies, resumed = ask(bag)
    assert replies.count(Fate.ANSWERED) == 4 and resumed == 0


@pytest.mark.parametrize(("parameters", "white"), [({}, None), ({"accept_16uc1": True, "image_bits": 12}, 255)])
def test_pictures_are_read_as_by_the_node(tmp_path, ask, grounder, parameters, white):
    with BagWriter(tmp_path / "grey", "mcap") as bag:
        msg = Image(height=20, width=24, encoding="16UC1", step=48)
        msg.data.frombytes(np.full((20, 24), 4095, "<u2").tobytes())
        msg.header.stamp.sec = 1
        bag.write("/camera/image", msg, 10**9)
    replies, _ = ask(tmp_path / "grey", **parameters)
    if white is None:
        assert replies.count(Fate.UNREADABLE) == 1 and "accept_16uc1" in replies.frames[0].kept[0].problem
    else:
        assert replies.count(Fate.ANSWERED) == 1 and (grounder.calls[0][0] == white).all()


def test_a_picture_that_cannot_be_decoded_is_counted(make_bag, ask):
    replies, _ = ask(make_bag(), max_image_pixels=100)
    assert replies.count(Fate.UNREADABLE) == 4 and "the limit is 100" in replies.frames[0].kept[0].problem

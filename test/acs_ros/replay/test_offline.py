from __future__ import annotations

import pytest

from acs_core.errors import DeviceMemoryError
from acs_ros.replay.asked import Truth, make_plan
from acs_ros.replay.contents import read_contents
from acs_ros.replay.journal import Journal
from acs_ros.replay.offline import OfflineAsker
from acs_ros.replay.replies import Fate
from acs_ros.replay.settings import make_settings
from acs_ros.replay.storage import Bag
from acs_ros.replay.topics import choose_topics


@pytest.fixture
def ask(grounder, tmp_path):
    """Asks ``query`` of every frame of a bag; answers stay in one folder."""

    def run(path, query="key", should_stop=lambda: False, **parameters):
        settings = make_settings(None, parameters)
        with Bag(path) as bag, Journal(tmp_path, {"grounder": "fake"}) as journal:
            topics = choose_topics(bag.topics, query="")
            plan = make_plan(read_contents(bag, topics), Truth({}), query, None)
            asker = OfflineAsker(grounder, settings, journal, should_stop)
            return asker.run(bag, topics, plan), asker.resumed

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


def test_a_picture_that_cannot_be_decoded_is_counted(make_bag, ask):
    replies, _ = ask(make_bag(), max_image_pixels=100)
    assert replies.count(Fate.UNREADABLE) == 4 and "the limit is 100" in replies.frames[0].kept[0].problem

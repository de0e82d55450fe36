from __future__ import annotations

import threading

import pytest

from acs_core.errors import Cancelled, ModelError
from acs_ros.loading import ModelLoader


def test_the_model_or_the_error_is_handed_on(grounder):
    outcomes = iter([ModelError("no such folder"), grounder, KeyError("layers")])

    def load(settings):
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    loader = ModelLoader(load)
    with pytest.raises(ModelError, match="no such folder"):
        loader.get("settings")
    assert loader.get("settings") is grounder
    with pytest.raises(KeyError):
        loader.get("settings")


@pytest.mark.parametrize("fails", [False, True])
def test_closing_lets_the_waiting_go_and_drops_the_model(grounder, until, fails):
    go, raised, calls = threading.Event(), [], []

    def load(settings):
        calls.append(settings)
        go.wait(60)
        if fails:
            raise ModelError("broken")
        return grounder

    loader = ModelLoader(load)

    def wait():
        try:
            loader.get("settings")
        except Cancelled as error:
            raised.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    until(lambda: calls, "the loading")
    loader.close()
    waiting.join(60)
    assert raised and loader.running
    go.set()
    until(lambda: not loader.running, "the end of the loading")
    with pytest.raises(Cancelled):
        loader.get("settings")
    assert calls == ["settings"]


def test_who_waits_is_told_that_it_still_loads(grounder, until):
    go, told = threading.Event(), []

    def load(settings):
        go.wait(60)
        return grounder

    def tell(seconds):
        told.append(seconds)
        if len(told) == 3:
            go.set()

    assert ModelLoader(load, tell_period=0.01).get("settings", tell) is grounder
    assert len(told) >= 3 and told == sorted(told)

from __future__ import annotations

import gc
import json
import threading
import weakref

import pytest
from hub_parts import add_to_cache
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from transformers.utils import logging
from vision_msgs.msg import LabelInfo, VisionInfo

from acs_core.artifacts.registry import ASSETS
from acs_core.errors import AcsError, Cancelled, ModelError
from acs_core.grounder import Grounder
from acs_ros.node.model_loader import ModelLoader, load_grounder
from acs_ros.node.parameter_table import SPECS
from acs_ros.node.parameters import Settings

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


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


def test_a_model_lives_no_longer_than_its_user_keeps_it(grounder):
    """The thread that loaded it kept it, until it got the processor for its last line: cleanup freed nothing then."""
    go = threading.Event()

    class Lingering(threading.Condition):
        def __exit__(self, *error):
            super().__exit__(*error)
            if threading.current_thread() is loader._thread:
                go.wait(60)

    loader = ModelLoader(lambda settings: type(grounder)())
    loader._changed = Lingering()
    try:
        kept = weakref.ref(loader.get("settings"))
        gc.collect()
        assert loader.running and kept() is None
    finally:
        go.set()


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


def test_the_commit_of_a_hub_model_is_in_the_messages(hub_cache, make_rig, image, until):
    """As the loader resolved it in the cache: nobody names it."""
    commit = add_to_cache(hub_cache, "acs-test/internvl", ASSETS / "tiny-internvl")
    rig = make_rig(load_grounder, model="acs-test/internvl", device="cpu", samples=1, max_new_tokens=8)
    rig.activate()
    told, candidates = rig.listen(VisionInfo, "/grounding/vision_info", LATCHED), rig.candidates
    rig.ask("key")
    rig.images.publish(image(width=120, height=90))
    until(lambda: told and candidates, "an answer")
    assert (candidates[0].model, candidates[0].revision) == ("acs-test/internvl", commit)
    assert told[0].method == f"acs-fusion-box on acs-test/internvl of revision {commit}"


def test_a_model_without_heads_is_refused_before_its_weights(hub_cache, make_rig, tmp_path):
    config = {"model_type": "internvl", "text_config": {"model_type": "qwen3", "num_hidden_layers": 5}}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    add_to_cache(hub_cache, "acs-test/bare", tmp_path / "model")
    rig = make_rig(load_grounder, model="acs-test/bare", selector="acs-free")
    assert rig.node.trigger_configure().name == "FAILURE"
    problem = rig.node.statistics.snapshot().load_problem
    assert "no head file is known for the model acs-test/bare" in problem and "consensus, works without it" in problem


@pytest.mark.parametrize(
    ("tokens", "frame", "given"),
    [(0, "family", {"max_image_tokens": None, "coordinate_frame": "family"}), (600, "0-1", {"max_image_tokens": 600})],
)
def test_the_picture_options_reach_the_model(monkeypatch, tokens, frame, given):
    loaded = {}
    monkeypatch.setattr(Grounder, "from_pretrained", lambda model, **options: loaded.update(options))
    values = {spec.name: spec.default for spec in SPECS}
    load_grounder(Settings(**values | {"max_image_tokens": tokens, "coordinate_frame": frame, "prefix_bytes": 7}))
    assert loaded.items() >= given.items() and loaded["coordinate_frame"] == frame and loaded["prefix_bytes"] == 7


def test_a_precision_that_no_score_keeps_is_an_error_when_the_model_is_loaded(make_rig):
    rig = make_rig(load_grounder, model="tiny-internvl", selector="medoid", device="cpu", min_precision=0.5)
    assert rig.node.trigger_configure().name == "FAILURE"
    assert "no score of medoid keeps a precision of 0.5" in rig.node.statistics.snapshot().load_problem


def test_a_precision_that_no_score_keeps_is_refused_while_the_node_runs(make_rig, grounder, image, until):
    rig = make_rig(lambda settings: grounder, initial_query="key")
    labels = rig.listen(LabelInfo, "/grounding/label_info", LATCHED)
    rig.activate()
    refused = rig.node.set_parameters([Parameter("min_precision", value=0.95)])[0]
    assert (refused.successful, refused.reason) == (False, "no score keeps 0.95")
    assert rig.node.settings.min_precision == 0
    assert rig.node.set_parameters([Parameter("min_precision", value=0.9)])[0].successful
    until(lambda: labels and labels[-1].threshold == 0.75, "the threshold that keeps the precision")
    rig.images.publish(image())
    until(lambda: rig.detections, "an answer")
    assert grounder.calls[-1][2]["min_precision"] == 0.9


def test_too_small_a_budget_is_an_error_of_acs():
    values = {spec.name: spec.default for spec in SPECS} | {"max_image_tokens": 15, "device": "cpu"}
    with pytest.raises(AcsError, match="max_image_tokens must be a whole number from 16"):
        load_grounder(Settings(**values))


def test_the_log_of_the_node_has_no_progress_bar(capfd):
    logging.enable_progress_bar()
    values = {spec.name: spec.default for spec in SPECS} | {"model": "tiny-internvl"}
    assert load_grounder(Settings(**values)).model_name == "tiny-internvl"
    assert "Loading weights" not in capfd.readouterr().err

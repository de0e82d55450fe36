"""The command from end to end on a fake grounder: what it prints, writes, and says when something is wrong."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from PIL import Image
from rclpy.serialization import serialize_message
from rosbags.highlevel import AnyReader
from std_msgs.msg import String

from acs_core.errors import ModelError
from acs_core.evaluation.storage import load
from acs_core.geometry import Box
from acs_core.output_folder import OutputFolder
from acs_ros.bags.bags import BagFrame, BagWriter
from acs_ros.node.parameter_table import SPECS
from acs_ros.replay.cli import main
from acs_ros.replay.options import OF_NODE, given_parameters, make_parser, usage_problem, without_ros_arguments


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_bag_with_its_own_truth_is_evaluated(make_bag, replay, tmp_path, storage, compressed):
    told = replay(make_bag(storage=storage, compressed=compressed), "--json", tmp_path / "all.json")
    assert told.code == 0, told.err
    assert "4 frames on /camera/image (" + ("CompressedImage)" if compressed else "Image)") in told.out
    assert "answered 4 100.0" in told.out and "note:" not in told.out
    evaluation = load(told.folder / "evaluation.json")
    (group,) = evaluation.groups
    assert evaluation.title == "bag: fake" and len(group.questions) == 4
    assert all(a.boxes == q.truth for a, q in zip(group.runs[0].answers, group.questions, strict=True))
    assert all((told.folder / q.image).is_file() for q in group.questions)
    data = json.loads((tmp_path / "all.json").read_text())
    assert data["frames"]["answered"] == 4 and [q["iou"] for q in data["questions"]] == [1.0] * 4
    (scores,) = (t["rows"][0] for t in data["tables"] if t["name"] == "scores")
    assert scores["Acc@0.5 %"]["value"] == scores["F1 %"]["value"] == 100.0 and scores["ECE %"] == 25.0
    assert (told.folder / "tables" / "phrases.csv").read_text().startswith("phrase,asked,boxes,")
    assert "3 key hit 0.75 1.00" in told.out and "answered 4 of 4 frames" in told.out
    with Image.open(told.folder / "contact_sheet.png") as sheet:
        assert sheet.info["Software"] == "acs-replay" and sheet.width > 640
    page = (told.folder / "report.html").read_text()
    assert "bag: fake" in page and page.count("data:image/webp;base64,") >= 4 and "/camera/image" in page
    with AnyReader([told.folder / "bag"]) as bag:
        assert "/grounding/detections" in bag.topics
    assert any((told.folder / "bag").glob("*" + {"mcap": ".mcap", "sqlite3": ".db3"}[storage]))


WITHOUT_TORCH = """
import sys

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers"}:
            raise SystemExit(f"{name} was imported first")

sys.meta_path.insert(0, Slow())
from acs_ros.replay.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("bag", ["none", "empty", "no topic", "good"])
def test_what_is_wrong_with_a_bag_is_said_before_torch_is_imported(make_bag, tmp_path, bag):
    """Torch takes seconds, and a mistyped path took all of them to be noticed."""
    (tmp_path / "empty").mkdir()
    folder = make_bag() if bag in ("good", "no topic") else tmp_path / bag
    wrong = ("--image-topic", "/other") if bag == "no topic" else ()
    command = [sys.executable, "-c", WITHOUT_TORCH, str(folder), "--out", str(tmp_path / "out"), *wrong]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = {"none": "there is no bag", "empty": "is no bag", "no topic": "/other", "good": "was imported first"}[bag]
    assert done.returncode == 1 and said in done.stderr, done.stderr
    assert ("4 frames on /camera/image" in done.stdout) == (bag == "good") == (tmp_path / "out").exists()


def test_without_truth_it_says_that_accuracy_is_unknown(make_bag, replay):
    told = replay(make_bag(truth=False), "--query", "key; cup")
    assert told.code == 0
    assert "ground truth: none" in told.out and "Accuracy is unknown" in told.out and "How good" not in told.out
    assert load(told.folder / "evaluation.json").groups == ()


def test_recorded_queries_are_asked_as_they_were(make_bag, replay, grounder):
    told = replay(make_bag(queries=((300_000_000, "cup"), (800_000_000, "key; dog"))))
    assert told.code == 0
    assert [phrase for _, phrase, _ in grounder.calls] == ["cup", "cup", "key", "dog"]
    assert "note: nothing was asked of 1 frames" in told.out and "not asked: no phrase was in force 1" in told.out


def test_a_second_run_asks_nothing_again_and_other_settings_begin_anew(make_bag, replay, grounder):
    bag = make_bag()
    first = replay(bag)
    again = replay(bag)
    assert len(grounder.calls) == 4 and "4 answers are here already" in again.out
    assert first.out.split("What became")[1] == again.out.split("What became")[1]
    other = replay(bag, "--samples", "3")
    assert len(grounder.calls) == 8 and "new settings: every frame is asked anew" in other.out


def test_a_run_that_answers_nothing_leaves_the_results_of_an_earlier_one(make_bag, replay, tmp_path):
    bag = make_bag(truth=False)
    good = replay(bag, "--query", "key")
    before = {f: f.read_bytes() for f in good.folder.rglob("*") if f.is_file() and not f.name.startswith(".acs-")}
    assert replay(bag, "--extract", tmp_path / "labels").code == 0
    told = replay(bag, "--coco", tmp_path / "labels" / "instances.json")  # nothing is labelled yet
    assert told.code == 1
    assert "no frame was answered; the results of an earlier run in" in told.err
    assert {f: f.read_bytes() for f in before} == before


def make_demo_folder(folder: Path, *names: str) -> None:
    """An output folder of the earlier demo with files of these names."""
    with OutputFolder(folder, "grounding_demo") as earlier, earlier.stage() as staged:
        for name in names:
            (staged / name).parent.mkdir(exist_ok=True)
            (staged / name).write_text("made by the demo")


@pytest.mark.parametrize("name", ["results.json", "contact_sheet.png", "frames/0000.png", "result_bag/result_bag.mcap"])
def test_a_run_that_answers_nothing_leaves_the_results_of_the_earlier_demo(make_bag, replay, tmp_path, name):
    make_demo_folder(tmp_path / "out", name)
    told = replay(make_bag(), "-p", "max_image_pixels:=100")
    assert told.code == 1
    assert "no frame was answered; the results of an earlier run in" in told.err
    assert (told.folder / name).read_text() == "made by the demo" and not (told.folder / "report.html").exists()


def test_a_folder_of_the_earlier_demo_is_taken_over_and_files_of_the_user_stay(make_bag, replay, tmp_path):
    make_demo_folder(tmp_path / "out", "results.json", "result_bag/result_bag.mcap", "frames.txt")
    (tmp_path / "out" / "notes.txt").write_text("of the user")
    (tmp_path / "out" / "result_bag" / "notes.txt").write_text("of the user")
    told = replay(make_bag())
    assert told.code == 0, told.err
    assert not (told.folder / "results.json").exists() and (told.folder / "contact_sheet.png").is_file()
    assert [file.name for file in (told.folder / "result_bag").iterdir()] == ["notes.txt"]
    assert (told.folder / "notes.txt").read_text() == "of the user" and (told.folder / "frames.txt").exists()


def test_a_folder_of_another_command_is_refused(make_bag, replay, tmp_path):
    with OutputFolder(tmp_path / "out", "acs-train fit"):
        pass
    told = replay(make_bag())
    assert told.code == 1 and "was made by `acs-train fit`, not by `acs-replay`" in told.err


def coco(make_bag, replay, tmp_path, frames=None):
    """A bag without truth, its frames extracted, and all of them labelled."""
    bag = make_bag(truth=False, frames=frames)
    told = replay(bag, "--extract", tmp_path / "labels")
    assert told.code == 0 and "frames in" in told.out
    file = tmp_path / "labels" / "instances.json"
    content = json.loads(file.read_text())
    content["categories"] = [{"id": 1, "name": "key"}]
    content["annotations"] = [{"image_id": i["id"], "category_id": 1, "bbox": [1, 2, 3, 3]} for i in content["images"]]
    return bag, file, content


def test_extracted_frames_come_back_as_truth(make_bag, replay, tmp_path):
    bag, file, content = coco(make_bag, replay, tmp_path)
    for image in content["images"]:
        del image["stamp"]  # as label tools do with fields they do not know
    file.write_text(json.dumps(content))
    told = replay(bag, "--coco", file)
    assert told.code == 0 and "ground truth: " in told.out and "note:" not in told.out
    (group,) = load(told.folder / "evaluation.json").groups
    assert [q.truth for q in group.questions] == [(Box(1, 2, 4, 5),)] * 4


def test_extracting_never_overwrites_labels(make_bag, replay, tmp_path):
    bag, file, _ = coco(make_bag, replay, tmp_path)
    before = file.read_text()
    told = replay(bag, "--extract", tmp_path / "labels")
    assert told.code == 1 and "it may have labels in it" in told.err and file.read_text() == before


def test_labels_of_another_size_are_left_out(make_bag, replay, tmp_path):
    bag, file, content = coco(make_bag, replay, tmp_path)
    content["images"][1] |= {"width": 80, "height": 60}
    file.write_text(json.dumps(content))
    told = replay(bag, "--coco", file)
    assert "1 frames were labelled at another size (the first at 80 x 60, the frame has 40 x 30)" in told.out
    assert len(load(told.folder / "evaluation.json").groups[0].questions) == 3


def test_frames_and_labels_that_do_not_match_are_counted(make_bag, replay, tmp_path):
    bag, file, content = coco(make_bag, replay, tmp_path)
    content["images"] = [*content["images"][:2], {"id": 9, "file_name": "elsewhere.png"}]
    file.write_text(json.dumps(content))
    told = replay(bag, "--coco", file)
    assert "note: 1 of 3 labelled pictures match none of the 4 frames: elsewhere.png" in told.out
    assert "note: 2 of 4 frames have no ground truth" in told.out


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_truncated_bag_is_evaluated_up_to_where_it_breaks(make_bag, frames, replay, storage):
    folder = make_bag(frames=frames(8, noise=True), storage=storage)
    file = next(f for f in folder.iterdir() if f.suffix in (".mcap", ".db3"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 3 // 4])
    told = replay(folder)
    assert told.code == 0, told.err
    assert told.out.count("note: the bag is damaged: it breaks after the message of") == 1
    evaluation = load(told.folder / "evaluation.json")
    assert 3 <= len(evaluation.groups[0].questions) < 8
    assert "the bag is damaged" in evaluation.facts["note 1"]


def test_messages_that_cannot_be_decoded_are_counted_and_skipped(tmp_path, frames, replay):
    with BagWriter(tmp_path / "bag") as bag:
        for number, frame in enumerate(frames(3)):
            bag.write_frame(frame)
            raw = {c.topic: c for c in bag._writer.connections}
            # A header, and then nothing of an image.
            start = frame.image_message if number else frames(9)[8].image_message
            bag._writer.write(raw["/camera/image"], frame.stamp_ns + 1, bytes(serialize_message(start))[:60])
            bag._writer.write(raw["/ground_truth"], frame.stamp_ns + 1, b"\x00\x01\x00\x00\xff")
    told = replay(tmp_path / "bag", "--query", "key")
    assert told.code == 0, told.err
    assert "note: 3 messages on /ground_truth cannot be decoded and are skipped" in told.out
    assert "unreadable: the picture cannot be decoded 3" in told.out and "answered 3" in told.out


def test_truth_of_other_frames_is_no_truth(make_bag, frames, replay, tmp_path):
    late = [BagFrame(f.stamp_ns + 7, f.image, f.truth) for f in frames(2)]
    with BagWriter(tmp_path / "odd") as bag:
        for frame, other in zip(frames(2), late, strict=True):
            bag.write("/camera/image", frame.image_message, frame.stamp_ns)
            bag.write("/ground_truth", other.truth_message, frame.stamp_ns)
    told = replay(tmp_path / "odd")
    assert told.code == 1 and "no frame has ground truth: the first label is of stamp 0.250000007" in told.err


def test_an_empty_bag_is_named(tmp_path, replay):
    with BagWriter(tmp_path / "bag"):
        pass
    told = replay(tmp_path / "bag")
    assert told.code == 1 and "the bag has no topics" in told.err
    with BagWriter(tmp_path / "texts") as bag:
        bag.write("/chatter", String(data="hello"), 5)
    assert "it has /chatter (std_msgs/String)" in replay(tmp_path / "texts").err


def test_nothing_answered_is_a_failure(make_bag, replay, grounder):
    grounder.error = RuntimeError("boom")
    told = replay(make_bag())
    assert told.code == 1 and "no frame was answered" in told.err
    assert "failed: an error came instead of an answer 4" in told.out


def test_a_model_that_does_not_load_is_one_line(make_bag, tmp_path, capsys):
    def load(settings):
        raise ModelError("no such\nmodel")

    assert main([str(make_bag()), "--out", str(tmp_path / "out")], load=load) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1] == "acs-replay: no such model"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a bag"),
        (["BAG", "--compare", "a", "b"], "--compare takes no bag"),
        (["BAG", "--query", " ; "], "--query is empty"),
        (["BAG", "--query", "x" * 300], "at most 200"),
        (["BAG", "--query", "a", "--query-topic", "/q"], "exclude one another"),
        (["BAG", "--truth", "/t", "--coco", "x"], "exclude one another"),
        (["BAG", "--samples", "0"], "argument --samples: must be a whole number from 1 to 256, got 0"),
        (["BAG", "--samples", "x"], "argument --samples: must be a whole number"),
        (["BAG", "--start-node"], "--start-node needs --live"),
        (["BAG", "--lockstep"], "--lockstep needs --live"),
        (["BAG", "--live", "--lockstep", "--rate", "2"], "--lockstep and --rate exclude one another"),
        (["BAG", "--min-answered", "1.5"], "argument --min-answered: must be a number from 0 to 1"),
        (["BAG", "--live", "--samples", "3"], "--samples cannot change a node that runs already"),
        (["BAG", "--live", "-p", "top_k:=3"], "-p cannot change a node that runs already"),
        (["BAG", "--node", "grounding"], "must be a full name"),
        (["BAG", "-p", "top_k"], "is not NAME:=VALUE"),
        (["BAG", "-p", "temperature:=nan"], "argument -p: temperature must be a finite number, got nan"),
        (["BAG", "-p", "temperature:=hot"], "argument -p: temperature must be a number, got 'hot'"),
        (["BAG", "-p", "samples:=1.5"], "argument -p: samples must be a whole number, got '1.5'"),
        (["BAG", "-p", "samples:=999"], "argument -p: samples must be in [1, 256], got 999"),
        (["BAG", "--rate", "0"], "argument --rate: must be a number from 0.001 to 1000"),
        (["BAG", "--frames", "0"], "argument --frames: must be a whole number from 1"),
        (["BAG", "--json", "/nowhere/x.json"], "the folder /nowhere does not exist"),
    ],
)
def test_wrong_usage_ends_with_code_2(make_bag, replay, arguments, said):
    told = replay(*[make_bag() if a == "BAG" else a for a in arguments])
    assert told.code == 2 and said in told.err and "Traceback" not in told.err


@pytest.mark.parametrize(
    "more",
    [
        "",
        "--model tiny-qwen2.5-vl --frames 10",
        "--selector acs-learned --samples 16 --seed -1 --params my.yaml --timeout 5 --out my_output",
    ],
)
def test_make_demo_gives_options_that_fit_together_and_arguments_replace_them(repo, more):
    recipe = re.search(r"-m acs_ros\.replay\.cli \$\(BAG\) (.*?)\$\(ARGS\)", (repo / "Makefile").read_text(), re.DOTALL)
    given = ["acs_ros/assets/demo_bag", *recipe[1].replace("\\\n", " ").split(), *more.split()]
    options = make_parser().parse_args(given)
    assert usage_problem(options) == ""
    assert options.live and options.start_node and options.lockstep and options.min_answered == 0.9
    assert (repo / "config" / "tiny_qwen2_5_vl.yaml").is_file()
    wanted = (
        ("my.yaml", 5.0, "my_output") if "my_output" in more else ("config/tiny_qwen2_5_vl.yaml", 60.0, "demo_output")
    )
    assert (str(options.params_file), options.quiet, str(options.out)) == wanted


def test_options_become_parameters_of_the_same_names():
    words = "b --whole-responses --no-speculation --prefix-bytes 9 --temperature 2 --samples auto -p top_k:=3"
    assert given_parameters(make_parser().parse_args(words.split())) == {
        "whole_responses": True,
        "speculation": False,
        "prefix_bytes": 9,
        "temperature": 2.0,
        "auto_samples": True,
        "top_k": 3,
    }
    assert given_parameters(make_parser().parse_args(["b"])) == {}
    assert set(OF_NODE) <= {spec.name for spec in SPECS}


@pytest.mark.parametrize("option", ["--whole-responses", "--speculation", "--no-speculation", "--prefix-bytes=9"])
def test_a_node_that_runs_already_keeps_its_parameters(option):
    told = usage_problem(make_parser().parse_args(["b", "--live", option]))
    assert told.startswith(f"{option.partition('=')[0]} cannot change a node")


def test_parameters_are_not_taken_for_ros_remappings(make_bag, replay, grounder, monkeypatch, tmp_path):
    """rclpy drops the value of -p where it looks like a remapping: temperature:=nan, but also device:=cpu."""
    words = ["acs-replay", str(make_bag()), "-p", "device:=cpu", "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", [*words, "--ros-args", "-r", "a:=b", "--", "--frames", "2"])
    assert main(load=lambda settings: grounder if settings.device == "cpu" else None) == 0
    assert len(grounder.calls) == 2
    assert without_ros_arguments(["a", "--ros-args", "-r", "b:=c"]) == ["a"]


def test_an_unknown_selector_is_found_before_the_bag_is_read(make_bag, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(make_bag()), "--selector", "nope"])
    said = capsys.readouterr()
    assert stopped.value.code == 2 and "nope" in said.err and "4 frames" not in said.out


def test_help_needs_no_model():
    script = (
        "import sys; from acs_ros.replay.cli import main\ntry: main(['--help'])\nfinally: print('torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "examples:" in told.stdout and told.stdout.splitlines()[-1] == "False"


def test_ctrl_c_writes_what_there_is_and_the_next_run_goes_on(make_bag, tmp_path, until):
    script = f"""
        import sys, time
        sys.path[:0] = {[str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "helpers")]!r}
        from conftest import FakeGrounder
        from acs_ros.replay.cli import main
        grounder = FakeGrounder()
        ask = grounder.ground_many
        def slow(*args, should_stop, **options):
            if len(grounder.calls) == 2 and "wait" in sys.argv:
                print("waiting", flush=True)
                while not should_stop():
                    time.sleep(0.01)
                grounder.gate.clear()
            return ask(*args, should_stop=should_stop, **options)
        grounder.ground_many = slow
        sys.exit(main([{str(make_bag())!r}, "--out", {str(tmp_path / "out")!r}], load=lambda settings: grounder))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    log = tmp_path / "log"
    with log.open("wb") as out:
        running = subprocess.Popen([*command, "wait"], stdout=out, stderr=subprocess.STDOUT, env=env)
    try:
        until(lambda: "waiting" in log.read_text(), "the third frame")
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130
    finally:
        running.kill()
        running.wait()
    said = log.read_text()
    assert "stopping; what there is will be written" in said and "Traceback" not in said
    assert "not reached: the run was stopped" in said
    assert len(load(tmp_path / "out" / "evaluation.json").groups[0].questions) == 2
    again = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    assert "2 answers are here already" in again.stdout
    assert len(load(tmp_path / "out" / "evaluation.json").groups[0].questions) == 4


def test_two_runs_are_compared(make_bag, replay, grounder, tmp_path):
    bag = make_bag()
    replay(bag, out="a")
    grounder.reason = "not there"
    replay(bag, "--seed", "2", out="b")
    told = replay("--compare", tmp_path / "b", tmp_path / "a" / "evaluation.json", "--json", tmp_path / "c.json")
    assert told.code == 0 and "4 questions in both" in told.out and "B won 4 questions and lost 0" in told.out
    assert json.loads((tmp_path / "c.json").read_text())["tables"][0]["name"] == "comparison"
    told = replay("--compare", tmp_path / "a", tmp_path / "nowhere.json")
    assert told.code == 1 and "nowhere.json" in told.err


def test_a_run_that_finds_no_room_goes_on_from_what_it_has(make_bag, replay, grounder, monkeypatch):
    bag = make_bag()
    with monkeypatch.context() as full:

        def no_room(*ignored, **also):
            raise OSError(errno.ENOSPC, "No space left on device")

        full.setattr("acs_ros.replay.output.Output._frame", no_room)
        told = replay(bag)
    assert told.code == 1
    assert str(told.folder) in told.err
    assert "Free some space" in told.err and "goes on from the answers that it has" in told.err
    asked = len(grounder.calls)
    again = replay(bag)
    assert again.code == 0
    assert len(grounder.calls) == asked == 4

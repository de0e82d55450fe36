"""acs-ground about several images and phrases: a folder, one bad image among others, a command that is stopped."""

import json
from pathlib import Path

import numpy as np
import pytest
from ground_command_parts import result
from PIL import Image

from acs_core import cli
from acs_core.cli import main
from acs_core.cli_inputs import picture_names
from acs_core.errors import DeviceMemoryError, HeadFileError, ModelError
from acs_core.overlay import draw_results
from acs_core.serialize import result_to_dict


@pytest.fixture
def shelf(tmp_path):
    """A folder with two images of different size, a damaged one, and a text."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    for name, width in (("b.png", 60), ("a.jpg", 64)):
        Image.new("RGB", (width, 40)).save(folder / name)
    (folder / "c.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("mine")
    return folder


def test_a_folder_of_images_and_several_phrases(grounder, shelf, tmp_path, capsys):
    good = [str(shelf / "a.jpg"), str(shelf / "b.png")]
    assert main([str(shelf), " key;red  mug;key", "--json", "-"]) == 1
    told = capsys.readouterr()
    answers = json.loads(told.out)["results"]
    assert [(Path(a["image"]).name, a.get("phrase")) for a in answers] == [
        *(("a.jpg", "key"), ("a.jpg", "red mug"), ("b.png", "key"), ("b.png", "red mug")),
        ("c.png", None),
    ]
    assert "c.png is not a picture" in answers[-1]["error"] and told.err.count("c.png") == 1
    assert {k: v for k, v in answers[0].items() if k != "image"} == result_to_dict(result())
    assert main([str(shelf / "[ab].*"), "key; red mug", "--out", str(tmp_path / "drawn")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f'{p}  "{x}"  [10.0, 5.0, 18.0, 15.0]  0.90' for p in good for x in ("key", "red mug")]
    assert sorted(p.name for p in (tmp_path / "drawn").iterdir()) == ["a.png", "b.png"]
    drawn = draw_results(np.zeros((40, 60, 3), np.uint8), [result("key"), result("red mug")])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "drawn/b.png")), drawn)
    assert main([*good, "key", "--out", str(tmp_path / "drawn")]) == 0  # its own pictures are replaced
    Image.new("RGB", (9, 9)).save(tmp_path / "drawn/a.png")
    assert main([*good, "key", "--out", str(tmp_path / "drawn")]) == 1  # the user's are not
    assert Image.open(tmp_path / "drawn/a.png").size == (9, 9)


@pytest.mark.parametrize(
    ("images", "names"),
    [
        ("a.jpg b.png", "a b"),
        ("left/1.png right/1.png left/2.png", "left-1 right-1 2"),
        ("a.jpg a.png b.png", "a.jpg a.png b"),
        ("left/a.jpg left/a.png right/a.png", "left-a.jpg left-a.png right-a.png"),
        ("x/cam/1.png y/cam/1.png", "x-cam-1 y-cam-1"),
        ("left/1.png right/1.png left-1.png", "left-1.png right-1.png left-1"),  # the third has that name already
        ("a.png b/../a.png a-2.png", "a a-3 a-2"),  # one file in two ways
        ("/1.png /r/1.png", "1 r-1"),
        (f"{'l' * 240}/1.png {'r' * 240}/1.png", "1 1-2"),
    ],
)
def test_pictures_have_distinct_names(images, names):
    assert picture_names([Path(image) for image in images.split()]) == [f"{name}.png" for name in names.split()]


def test_an_image_that_is_too_large_for_the_device_does_not_end_the_others(grounder, shelf, capsys, monkeypatch):
    """Nor does a folder with the name of an image."""
    (shelf / "c.png").unlink()
    (shelf / "d.png").mkdir()
    real = grounder.ground_many

    def full(image, phrases, **options):
        if image.shape[1] == 64:
            raise DeviceMemoryError("no room")
        return real(image, phrases, **options)

    monkeypatch.setattr(grounder, "ground_many", full)
    assert main([str(shelf), "key", "--json", "-"]) == 1
    answers = json.loads(capsys.readouterr().out)["results"]
    assert [(Path(a["image"]).name, a.get("error")) for a in answers] == [("a.jpg", "no room"), ("b.png", None)]


@pytest.mark.parametrize(
    ("stop", "at"),
    [(KeyboardInterrupt(), "ground"), (OSError(28, "No space left"), "write"), (None, "ground")],
)
def test_answers_are_kept_when_the_command_is_stopped(grounder, shelf, tmp_path, capsys, monkeypatch, stop, at):
    """The disk may have room for the JSON, and none for the pictures."""
    stop = stop or ModelError("the device is lost")
    file, mine = tmp_path / "o.json", tmp_path / "mine.json"
    arguments = [str(shelf), "key", "--out", str(tmp_path / "drawn"), "--json"]

    def raising(call, name):
        def wrapped(*given, **options):
            if name(given):
                raise stop
            return call(*given, **options)

        return wrapped

    if at == "write":
        monkeypatch.setattr(cli, "write_picture", raising(cli.write_picture, lambda given: given[0].name == "b.png"))
    else:
        real = grounder.ground_many
        monkeypatch.setattr(grounder, "ground_many", raising(real, lambda given: given[0].shape[1] == 60))

    def end(json_file):
        if not isinstance(stop, KeyboardInterrupt):
            assert main([*arguments, str(json_file)]) == 1
        else:
            with pytest.raises(KeyboardInterrupt):  # acs_core.entry makes exit code 130 of it
                main([*arguments, str(json_file)])
        return capsys.readouterr()

    done = ["a.jpg", "b.png"] if at == "write" else ["a.jpg"]
    assert f"acs-ground: {len(done)} of 3 images are done: their answers are in {file}\n" in end(file).err
    assert [Path(answer["image"]).name for answer in json.loads(file.read_text())["results"]] == done
    said = end("-")
    assert len(json.loads(said.out)["results"]) == len(done) and "3 images are done: their answers were pr" in said.err
    real_print = cli.print_line
    monkeypatch.setattr(cli, "print_line", lambda *a: (mine.write_text("mine"), real_print(*a)))  # created meanwhile
    assert "images are done, but their answers cannot be written: " in end(mine).err
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["{folder}/none*.png", "key"], 1, "no file matches"),
        (["{folder}/empty", "key"], 1, "holds no image file"),
        (["{folder}/a.jpg", " ; "], 1, "the phrase is empty"),
        (["{folder}/a.jpg", "{folder}/b.png", "key", "--out", "x.png"], 2, "--out must name a folder for 2 images"),
        (["{folder}/a.jpg", "{folder}/b.png", "key", "--out", "{folder}/x"], 1, "is a file: for 2 images, --out names"),
        (["{folder}/b.png", "{folder}/a.jpg"], 2, "a.jpg, is a picture: where is the phrase?"),
        (["a.png", "key", "--sample", "3"], 2, "unrecognized arguments: '--sample 3'; did you mean --samples?"),
        (["a.png", "key", "--heads", "none.json"], 1, "--heads none.json: no heads"),
    ],
)
def test_what_cannot_be_done_names_what_was_typed(grounder, shelf, capsys, arguments, code, says):
    (shelf / "empty").mkdir()
    (shelf / "x").write_text("mine")
    Image.new("RGB", (60, 40)).save(shelf / "a.png")
    if "--heads" in arguments:
        grounder.answer, arguments = HeadFileError("no heads"), [str(shelf / "a.png"), *arguments[1:]]
    try:
        ended = main([word.replace("{folder}", str(shelf)) for word in arguments])
    except SystemExit as stopped:
        ended = stopped.code
    said = capsys.readouterr().err
    assert ended == code and says in said and len(said.splitlines()) == 1, said
    assert (shelf / "x").read_text() == "mine"

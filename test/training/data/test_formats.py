"""The same picture and its objects, as each format writes them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training.data.dataset import image_number
from training.data.formats import locate
from training.data.pairs import choose_pairs, load_absent
from training.errors import DataError

SIZE = WIDTH, HEIGHT = 100, 80
BOW = (10, 20, 16, 26)  # the only bow, small
CUP, CUP_TOO = (30, 30, 36, 36), (60, 40, 70, 50)  # the second one is unclear where the format can say so


def picture(file, size=SIZE):
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), np.zeros((size[1], size[0], 3), np.uint8))


def xywh(box):
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def json_file(file, images=({},), annotations=({},) * 3, categories=(), bom=False, **more):
    """COCO's file of one picture; each mapping changes an entry, and a value of None removes a field."""
    boxes, ids = (BOW, CUP, CUP_TOO), (1, 2, 2)
    entries = [
        {"id": n, "image_id": 7, "category_id": c, "bbox": xywh(b), "iscrowd": int(b is CUP_TOO), **change}
        for n, (b, c, change) in enumerate(zip(boxes, ids, annotations, strict=True))
    ]
    content = {
        "images": [{"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT, **change} for change in images],
        "annotations": entries,
        "categories": [{"id": 1, "name": "bow_(weapon)"}, {"id": 2, "name": "cup"}, *categories],
    }
    for entry in (*content["images"], *entries):
        for key in [key for key, value in entry.items() if value is None]:
            del entry[key]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content | more), encoding="utf-8-sig" if bom else "utf-8")
    return file


def coco(folder):
    picture(folder / "val2017" / "a.png")
    json_file(folder / "annotations" / "instances_val2017.json")


def lvis(folder):
    picture(folder / "val2017" / "a.png")
    url = {"file_name": None, "coco_url": "http://images.example.org/val2017/a.png"}
    more = {"neg_category_ids": [3], "not_exhaustive_category_ids": [2]}
    changes = {"annotations": ({"iscrowd": None},) * 3, "categories": [{"id": k, "name": f"c{k}"} for k in (3, 4)]}
    json_file(folder / "annotations" / "lvis_v1_val.json", [url | more], **changes)


def objects365_v1(folder):
    picture(folder / "val" / "a.png")
    fake = ({"isfake": 0}, {"isfake": 0}, {"iscrowd": 0, "isfake": 1})
    json_file(folder / "annotations" / "objects365_val.json", annotations=fake)


def objects365_v2(folder):
    picture(folder / "val" / "patch8" / "a.png")
    reflected = ({}, {}, {"iscrowd": 0, "isreflected": 1})
    json_file(folder / "zhiyuan_objv2_val.json", [{"file_name": "images/v2/patch8/a.png"}], reflected)


def roboflow(folder):
    picture(folder / "valid" / "a.png")
    texts = [{"id": "7", "width": "none"}]
    above = {"id": 0, "name": "things", "supercategory": "none"}
    annotations = tuple({"image_id": "7", "category_id": str(k)} for k in (1, 2, 2))
    names = [
        above,
        *({"id": f"{k}", "name": n, "supercategory": "things"} for k, n in ((1, "bow_(weapon)"), (2, "cup"))),
    ]
    json_file(folder / "valid" / "_annotations.coco.json", [texts[0] | {"width": WIDTH}], annotations, bom=True)
    content = json.loads((folder / "valid" / "_annotations.coco.json").read_text("utf-8-sig"))
    (folder / "valid" / "_annotations.coco.json").write_text(json.dumps(content | {"categories": names}), "utf-8-sig")


def polygons(folder):
    """No box, no size, texts as ids, and a path of Windows."""
    picture(folder / "images" / "deep" / "a.png")
    drawn = [[b[0], b[1], b[2], b[1], b[2], b[3], b[0], b[3]] for b in (BOW, CUP, CUP_TOO)]
    bare = {"width": None, "height": None, "id": "photo-a", "file_name": "C:\\data\\images\\deep\\a.png"}
    found = tuple({"bbox": None, "segmentation": [p], "image_id": "photo-a"} for p in drawn)
    json_file(folder / "instances.json", [bare], found)


def yolo(folder):
    for split in ("train", "valid"):
        picture(folder / split / "images" / f"{split}.png", SIZE)
        (folder / split / "labels").mkdir()
    (folder / "data.yaml").write_text(
        "path: /home/somebody/data\ntrain: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['bow_(weapon)', cup]\n"
    )
    x, y = (BOW[0] + BOW[2]) / 2 / WIDTH, (BOW[1] + BOW[3]) / 2 / HEIGHT
    w, h = (BOW[2] - BOW[0]) / WIDTH, (BOW[3] - BOW[1]) / HEIGHT
    corners = [(30, 30), (36, 30), (36, 36), (30, 36)]
    polygon = " ".join(f"{a / WIDTH} {b / HEIGHT}" for a, b in corners)
    (folder / "valid" / "labels" / "valid.txt").write_text(f"\ufeff0 {x} {y} {w} {h}\n1 {polygon}\n1 0.5\n")


VOC_OBJECT = (
    "<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>"
    "<ymax>{}</ymax></bndbox></object>"
)


def voc_text(first, source="", file="a.png"):
    objects = [("bow_(weapon)", 0, BOW), ("cup", 0, CUP), ("cup", 1, CUP_TOO)]
    rows = "".join(VOC_OBJECT.format(n, d, b[0] + first, b[1] + first, b[2], b[3]) for n, d, b in objects)
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    return f"<annotation><filename>{file}</filename>{source}{size}{rows}</annotation>"


def voc(folder):
    picture(folder / "JPEGImages" / "a.png")
    for name, text in (("Annotations/a.xml", voc_text(1, "<source><database>The VOC2007 Database</database></source>")),
                       ("Annotations/b.xml", voc_text(1)), ("ImageSets/Main/val.txt", "a\n")):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def voc_beside(folder):
    picture(folder / "valid" / "a.png")
    (folder / "valid" / "a.xml").write_text(voc_text(0, file="D:\\photos\\a.png"))


def open_images(folder):
    picture(folder / "validation" / "00a1b2c3d4e5f6a7.png")
    (folder / "oidv7-class-descriptions-boxable.csv").write_text("LabelName,DisplayName\n/m/1,bow_(weapon)\n/m/2,cup\n")
    rows = [
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
    ]
    for label, group, b in (("1", "0", BOW), ("2", "0", CUP), ("2", "-1", CUP_TOO)):
        corners = f"{b[0] / WIDTH},{b[2] / WIDTH},{b[1] / HEIGHT},{b[3] / HEIGHT}"
        rows += [f"{name},x,/m/{label},1,{corners},1,1,{group},0,0" for name in ("00a1b2c3d4e5f6a7", "elsewhere")]
    (folder / "validation-annotations-bbox.csv").write_text("\n".join(rows) + "\n")


FORMATS = [coco, lvis, objects365_v1, objects365_v2, roboflow, polygons, yolo, voc, voc_beside, open_images]


@pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__)
def test_every_format_gives_the_same_pair(tmp_path, write):
    """The bow is a question; the cups are none, since one is unclear, damaged, or may be missing."""
    write(tmp_path)
    data = locate(tmp_path, split="val").read()
    (image,) = data.images
    assert image.size == SIZE and image.file.is_file() and image.id >= 0
    (pair,) = choose_pairs(data, ("small", "medium"), "any")
    assert pair.category == "bow (weapon)" and pair.read().shape == (HEIGHT, WIDTH, 3)
    (box,) = pair.truth
    assert box.as_tuple() == pytest.approx(BOW)
    assert set(data.names) >= {"bow (weapon)", "cup"} and "things" not in data.names


def test_only_categories_known_to_be_absent_are_asked_for_as_such(tmp_path):
    lvis(tmp_path)
    (pair,) = load_absent(tmp_path / "annotations" / "lvis_v1_val.json", 5, tmp_path)
    assert pair.category == "c3"  # c4 is neither annotated nor verified


@pytest.mark.parametrize("flag", ["ignore", "difficult", "uncertain", "isGroupOf"])
@pytest.mark.parametrize(("value", "asked"), [(0, True), ("0", True), (False, True), (1, False), ("1", False)])
def test_flagged_objects_are_no_objects(tmp_path, flag, value, asked):
    file = json_file(tmp_path / "instances.json", annotations=({flag: value}, {}, {}))
    pairs = choose_pairs(locate(file).read(), ("small",), "any") if asked else []
    assert [p.category for p in pairs] == ["bow (weapon)"] * asked
    if not asked:
        with pytest.raises(DataError, match="no pair"):
            choose_pairs(locate(file).read(), ("small",), "any")


def test_phrases_replace_names_and_join_categories(tmp_path):
    phrases = tmp_path / "phrases.json"
    phrases.write_text('{"bow_(weapon)": "longbow", "cup": "vessel", "no such": "x", "mug": "vessel"}')
    more = [{"id": 3, "name": "mug"}]
    file = json_file(
        tmp_path / "instances.json", annotations=({}, {}, {"iscrowd": 0, "category_id": 3}), categories=more
    )
    data = locate(file, phrases=phrases).read()
    found = {p.category: len(p.truth) for p in choose_pairs(data, ("small", "medium"), "any")}
    assert found == {"longbow": 1} and data.names == ("longbow", "vessel")
    assert {o.name for o in data.images[0].objects} == {"longbow", "vessel"}  # two vessels, of two sizes: no pair
    assert "no such" in " ".join(data.problems.lines())
    for text in ("[]", '{"a": 3}', "{"):
        phrases.write_text(text)
        with pytest.raises(DataError, match=r"phrases.*phrases\.json"):
            locate(file, phrases=phrases)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda f: json_file(f / "instances.json", [{"file_name": "../a.png"}]), "image entry: needs an id"),
        (lambda f: json_file(f / "instances.json", [{"width": None}]), "width and height are not numbers"),
        (lambda f: json_file(f / "instances.json", [{"width": None, "height": None}]), "its picture cannot be read"),
        (lambda f: json_file(f / "instances.json", [{}, {"file_name": "b.png"}]) and (f / "none"), "does not exist"),
        (lambda f: f, "holds no val side.*it holds nothing"),
        (lambda f: (f / "data.yaml").write_text("a: &x 1\nb: *x\n") and f, "references"),
        (lambda f: (f / "data.yaml").write_text("val: images\n") and f, '"names"'),
        (lambda f: (f / "data.yaml").write_text("names: [a]\ntrain: images\n") and f, "no pictures of the split val"),
        (lambda f: (f / "data.yaml").write_text("names: [a]\nval: images\n") and f, "'images' is not below"),
        (lambda f: (f / "a.xml").write_text("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>") and f, "type or entities"),
        (lambda f: (f / "a.xml").write_text("<annotation>") and f, "no XML that can be read"),
        (lambda f: (f / "test-annotations-bbox.csv").write_text("ImageID\n") and f, "class-descriptions"),
        (lambda f: Path((f / "notes.doc").write_text("") or f / "notes.doc"), "no known format"),
    ],
)  # fmt: skip
def test_the_error_names_the_dominant_problem(tmp_path, make, said):
    with pytest.raises(DataError, match=said):
        locate(make(tmp_path), split="val").read()


def test_ids_become_numbers_that_collections_can_store():
    texts = ["a", "2008_000008", "0" * 16, "-1", "ü", "a" * 1000, -1, 2**60, 10**200]
    numbers = [image_number(value) for value in texts]
    assert [image_number(value) for value in ("000139", "139", 139, 0)] == [139, 139, 139, 0]
    assert len({*numbers} - {None}) == len(texts) - 1 - 1  # "-1" and -1 are the same, 10**200 is none
    assert all(0 <= n < 2**53 for n in numbers if n is not None) and image_number(True) is image_number("") is None


WORDS = (
    *(
        "nan",
        "inf",
        "1e999",
        "9" * 5000,
        "names:",
        "val: images",
        "<object>",
        "<bndbox>",
        "</annotation>",
        "<!DOCTYPE a>",
    ),
    *("<!DOCTYPE a>", "\0", "..", "/etc", "a.png", "key", "ImageID,LabelName,XMin,YMin,XMax,YMax", "/m/1"),
)
PIECES = st.sampled_from([*"0123456789.,-: \n\t\"'[]{}<>/*&#", *WORDS])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES, max_size=30).map("".join), st.sampled_from(["yolo", "labels", "voc", "boxes", "classes"]))
def test_damaged_files_give_valid_boxes_or_an_error(tmp_path, text, kind):
    folder = tmp_path / kind
    if not folder.exists():
        {"voc": voc_beside, "boxes": open_images, "classes": open_images}.get(kind, yolo)(folder)
    file = {
        "yolo": "data.yaml",
        "labels": "valid/labels/valid.txt",
        "voc": "valid/a.xml",
        "boxes": "validation-annotations-bbox.csv",
        "classes": "oidv7-class-descriptions-boxable.csv",
    }[kind]
    (folder / file).write_text(text)
    try:
        data = locate(folder, split="val").read()
    except DataError:
        return
    for image in data.images:
        assert image.file.resolve().is_relative_to(folder.resolve())
        assert all(0 <= o.box.x1 < o.box.x2 <= WIDTH and 0 <= o.box.y1 < o.box.y2 <= HEIGHT for o in image.objects)
    data.problems.lines()

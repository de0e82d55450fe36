"""The page, read as a file. What it does in a browser is in test_page_browser.py."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from eval_parts import CATEGORIES, SQUARE, evaluation, question
from PIL import Image

from acs_core.evaluation.cases import choose_cases
from acs_core.evaluation.metrics import measure
from acs_core.evaluation.page import headlines_of, reader_from, thumbnail, write_page, zoom
from acs_core.evaluation.records import Evaluation, Group, Prediction, Question, Run
from acs_core.evaluation.tables import assess, tables_of
from acs_core.geometry import Box

HOSTILE = """<script>window.pwned=1</script><img src=x onerror="window.pwned=1">'"]]>--></style>"""


class Tags(HTMLParser):
    """All tags with their attributes, and the text of each kind."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.stack = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.stack.append(tag)

    def handle_endtag(self, tag):
        while self.stack and self.stack.pop() != tag:
            pass

    def handle_data(self, data):
        if self.stack:
            self.texts.setdefault(self.stack[-1], []).append(data.strip())

    def all(self, name, **wanted):
        return [a for tag, a in self.tags if tag == name and all(a.get(k) == v for k, v in wanted.items())]


def grey(image):
    return np.full((48, 64, 3), 128, np.uint8)


def written(tmp_path, evaluations, **more):
    file = tmp_path / "made" / "report.html"
    write_page([assess(e, draws=100) for e in evaluations], file, more.pop("read", grey), **more)
    return file.read_text(encoding="utf-8")


def test_the_page_needs_nothing_else(tmp_path):
    text = written(tmp_path, [evaluation(40)])
    page = Tags(text)
    assert "http:" not in text and "https:" not in text and "@import" not in text and "url(" not in text
    assert not page.all("link") and not [a for a in page.all("script") if "src" in a]
    assert all(a["href"].startswith("data:image/webp;base64,") for a in page.all("image"))
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert "default-src 'none'" in policy and re.search(r"script-src 'sha256-[\w+/]+=*'$", policy)
    assert page.all("html", lang="en") and page.texts["title"][0] == "tiny on made-up"


def test_pictures_lie_in_the_page_once_and_serve_both_answers(tmp_path):
    page = Tags(written(tmp_path, [evaluation(40, several=False)], pictures=12))
    cases = [a for a in page.all("li") if a.get("class") == "case"]
    assert len(cases) == len(page.all("image")) == len(page.all("use")) == 12
    assert {a["href"].removeprefix("#") for a in page.all("use")} == {a["id"] for a in page.all("image")}
    assert all(a.get("aria-label") for a in page.all("svg"))
    assert len([a for a in page.all("rect") if a.get("class") == "truth"]) == 24


@pytest.mark.parametrize("pictures", [0, 1, 7])
def test_no_more_pictures_than_wanted(tmp_path, pictures):
    page = Tags(written(tmp_path, [evaluation(20, several=False)], pictures=pictures))
    assert len(page.all("image")) == pictures


def test_text_of_the_data_is_never_markup(tmp_path):
    asked = (Question(HOSTILE, HOSTILE, HOSTILE, HOSTILE, (64, 48), (Box(1, 1, 9, 9),)),)
    runs = (
        Run("Greedy", None, 1, (Prediction(reason=HOSTILE),), "baseline"),
        Run(HOSTILE, 0.5, 10, (Prediction((Box(1, 1, 9, 9),), (0.5,)),), HOSTILE),
    )
    hostile = Evaluation(HOSTILE, (Group(HOSTILE, "single", asked, runs),), {HOSTILE: HOSTILE})

    def broken(image):
        raise OSError(HOSTILE)

    for read in (grey, broken):
        text = written(tmp_path, [hostile, replace(hostile, title="b")], read=read, title=HOSTILE)
        page = Tags(text)
        assert len(page.all("script")) == 1 and len(page.all("style")) == 1 and not page.all("img")
        assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on")]
        assert page.texts["h1"] == [HOSTILE]


def test_characters_that_nobody_sees_are_shown(tmp_path):
    hidden = "a\u202eb\x1b[31m\x9bc\u2066d"
    asked = (Question(hidden, hidden, hidden, hidden, (64, 48), (Box(1, 1, 9, 9),)),)
    runs = (Run(hidden, 0.5, 10, (Prediction((Box(1, 1, 9, 9),), (0.5,), reason=hidden),)),)
    text = written(tmp_path, [Evaluation(hidden, (Group(hidden, "single", asked, runs),), {hidden: hidden})])
    assert not any(c in text for c in "\u202e\x1b\x9b\u2066") and "a\ufffdb" in text


def test_a_missing_picture_says_why(tmp_path):
    def read(image):
        raise OSError("the disk is gone")

    page = Tags(written(tmp_path, [evaluation(10, several=False)], read=read))
    assert not page.all("image") and "No picture: the disk is gone" in page.texts["p"]


@pytest.mark.parametrize("box", [Box(float("nan"), 0, 10, 10), Box(-1e12, 0, 1e12, 10), Box(20, 20, 10, 10)])
def test_boxes_that_no_picture_holds(tmp_path, box):
    run = Run("published", None, 1, (Prediction((box,)),))
    text = written(tmp_path, [Evaluation("t", (Group("g", "single", (question(0),), (run,)),))])
    for attributes in Tags(text).all("rect"):
        values = [float(attributes[name]) for name in ("x", "y", "width", "height")]
        assert np.isfinite(values).all() and values[2] >= 0 and values[3] >= 0
    (picture,) = [a for a in Tags(text).all("svg") if "data-zoom" in a]
    assert np.isfinite([float(v) for v in picture["data-zoom"].split()]).all()


def test_tables_tell_their_headers(tmp_path):
    page = Tags(written(tmp_path, [evaluation(20)]))
    heads = page.all("th")
    assert heads and all(a.get("scope") in ("col", "row", "colgroup") for a in heads)
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in page.all("div", role="region"))


def test_a_run_alone_has_one_answer_a_picture(tmp_path):
    run = Run("published", 0.5, 10, (Prediction((SQUARE,), (0.9,)), Prediction(reason="cut off")))
    alone = Evaluation("a bag", (Group("bag", "single", (question(0), question(1)), (run,)),))
    page = Tags(written(tmp_path, [alone]))
    assert not page.all("use")
    assert {a["data-outcome"] for a in page.all("button")} == {"", "right", "wrong"}
    assert "cut off" in page.texts["small"]


def test_several_evaluations_have_tabs_and_a_table_of_all(tmp_path):
    text = written(tmp_path, [evaluation(20), evaluation(20, seed=1, title="another")])
    page = Tags(text)
    assert [a["data-evaluation"] for a in page.all("a")] == ["1", "2"]
    assert "All evaluations" in page.texts["h2"]
    assert "All evaluations" not in Tags(written(tmp_path, [evaluation(20)])).texts["h2"]


def test_the_filter_offers_what_there_is(tmp_path):
    page = Tags(written(tmp_path, [evaluation(60)]))
    options = {a["value"] for a in page.all("option")}
    assert set(CATEGORIES) | {"coin", "small", "several", ""} == options


def test_the_zoom_holds_all_boxes():
    measured = measure(evaluation(30, several=False).groups[0], 100)
    for case in choose_cases(measured, 30).shown:
        x, y, width, height = zoom(case)
        assert x >= 0 and x + width <= 640.01 and y >= 0 and y + height <= 480.01
        assert width / height == pytest.approx(640 / 480, rel=0.01)
        for box in (*case.question.truth, *(b for panel in case.panels for b in panel.boxes)):
            inside = box.clip(640, 480)
            assert x <= inside.x1 and inside.x2 <= x + width and y <= inside.y1 and inside.y2 <= y + height


def test_an_evaluation_without_groups_is_a_page_all_the_same(tmp_path):
    assert "<h1>empty</h1>" in written(tmp_path, [Evaluation("empty", ())])


@pytest.mark.parametrize(("size", "small"), [((1000, 500), (480, 240)), ((300, 600), (240, 480)), ((64, 48), (64, 48))])
def test_a_picture_becomes_small_and_text(size, small):
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    picture[..., 0] = 200
    made = thumbnail(lambda image: picture, "a")
    kind, _, data = made.uri.partition(",")
    assert kind == "data:image/webp;base64" and made.problem == ""
    back = Image.open(io.BytesIO(base64.b64decode(data)))
    assert back.size == small and np.asarray(back)[..., 0].mean() > 180


def test_files_are_looked_for_in_each_folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "b" / "p.png")
    read = reader_from(tmp_path / "a", tmp_path / "b")
    assert read("p.png").shape == (30, 40, 3)
    assert reader_from()(str(tmp_path / "b" / "p.png")).shape == (30, 40, 3)
    assert read(str(tmp_path / "b" / "p.png")).shape == (30, 40, 3)


def test_what_cannot_be_read_is_told(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    read = reader_from(tmp_path)
    assert "does not exist" in thumbnail(read, "gone.png").problem
    assert "not a picture" in thumbnail(read, "text.png").problem
    assert thumbnail(read, "\0").problem and thumbnail(read, "").problem


def test_headlines_are_the_numbers_of_the_table():
    assessed = assess(evaluation(40), draws=100)
    lines = headlines_of(assessed)
    assert [line.title.split(" τ")[0] for line in lines] == ["Greedy", "acs-free", "acs-learned", "Greedy", "acs-free"]
    table = tables_of(assessed)[0]
    greedy = table.rows[0].cells[2]
    assert lines[0].value == f"{greedy.value:.1f} %" and f"{greedy.low:.1f} to {greedy.high:.1f}" in lines[0].text
    assert "on greedy, p " in lines[1].text and "F1, several" in lines[3].text


def test_a_run_alone_has_one_headline():
    run = Run("published", None, 1, (Prediction((SQUARE,)),))
    (line,) = headlines_of(assess(Evaluation("t", (Group("bag", "single", (question(0),), (run,)),)), draws=100))
    assert (line.title, line.value) == ("published", "1 of 1") and "greedy" not in line.text
    assert "1 question, too few to compare" in line.text

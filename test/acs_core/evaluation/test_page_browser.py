"""The page in a real browser, without a screen. One start of it does everything: a frame page loads reports in frames
of two widths, clicks in them, and writes down what it sees."""

import json
import re
import shutil
import subprocess
from html import unescape

import numpy as np
import pytest
from eval_parts import CATEGORIES, evaluation

from acs_core.evaluation.page import write_page
from acs_core.evaluation.tables import assess

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = "headless no-sandbox disable-gpu disable-dev-shm-usage disable-background-networking disable-component-update"
QUIET += " disable-sync no-first-run disable-quic allow-file-access-from-files"
SECONDS = 120  # far more than it takes; a browser that hangs is ended

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium here: apt-get install chromium")

FRAMES = """<!DOCTYPE html><body>
<iframe id="phone" width="390" height="800" src="report.html"></iframe>
<iframe id="desk" width="1280" height="900" src="report.html"></iframe>
<iframe id="link" width="1280" height="900" src="report.html#outcome=won&category=%s&zoom=1&evaluation=2"></iframe>
<iframe id="odd" width="1280" height="900" src="report.html#outcome=nonsense&evaluation=9"></iframe>
<pre id="seen"></pre>
<script>
function seen(id) {
  const page = document.getElementById(id).contentDocument;
  const section = [...page.querySelectorAll("section.evaluation")].find((s) => !s.hidden);
  const cases = [...section.querySelectorAll(".case")].filter((c) => c.getBoundingClientRect().height > 0);
  return {
    overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    cut: [...section.querySelectorAll("tbody td, tbody th")].filter((c) => {
      const box = c.getBoundingClientRect();
      return box.height > 0 && (box.right > page.documentElement.clientWidth || c.scrollWidth > c.clientWidth + 1);
    }).length,
    evaluation: section.dataset.evaluation,
    outcomes: cases.map((c) => c.dataset.outcome),
    categories: cases.map((c) => c.dataset.category),
    groups: cases.map((c) => c.dataset.group),
    told: section.querySelector("output").textContent,
    none: !section.querySelector(".none").hidden,
    pressed: [...section.querySelectorAll("button[aria-pressed=true]")].map((b) => b.dataset.outcome),
    chosen: section.querySelector("select[name=category]").value,
    zoomed: cases.map((c) => c.querySelector("svg").getAttribute("viewBox") === c.querySelector("svg").dataset.zoom),
    hash: page.location.hash,
    pwned: page.defaultView.pwned === 1,
    pictures: [...section.querySelectorAll("image")].every((i) => i.getBBox().width > 0),
  };
}
function act(id, selector, todo) {
  todo(document.getElementById(id).contentDocument.querySelector(selector));
  return seen(id);
}
function choose(value) {
  return (list) => { list.value = value; list.dispatchEvent(new Event("change", { bubbles: true })); };
}
window.onload = () => {
  const found = { phone: seen("phone"), desk: seen("desk"), link: seen("link"), odd: seen("odd") };
  const click = (element) => element.click();
  found.lost = act("desk", "button[data-outcome=lost]", click);
  found.cup = act("desk", "select[name=category]", choose("cup"));
  found.several = act("desk", "select[name=group]", choose("several"));
  found.nothing = act("desk", "button[data-outcome=won]", click);
  act("desk", "select[name=category]", choose(""));
  act("desk", "select[name=group]", choose(""));
  found.all = act("desk", "button[data-outcome='']", click);
  found.zoom = act("desk", "input[name=zoom]", click);
  found.tab = act("desk", "a[data-evaluation='2']", click);
  document.getElementById("seen").textContent = JSON.stringify(found);
};
</script>"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    hostile = "<script>window.pwned=1</script>"
    evaluations = [evaluation(80, title=hostile), evaluation(80, seed=1, title="another")]
    assessed = [assess(e, draws=100) for e in evaluations]
    write_page(assessed, folder / "report.html", lambda image: np.full((48, 64, 3), 99, np.uint8), pictures=200)
    frames = folder / "frames.html"
    frames.write_text(FRAMES % CATEGORIES[0])
    command = [
        BROWSER,
        *(f"--{word}" for word in QUIET.split()),
        f"--user-data-dir={folder / 'profile'}",
        "--dump-dom",
        frames.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    found = re.search(r'<pre id="seen">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found, f"the browser saw nothing (exit code {done.returncode}): {done.stderr[-2000:]}"
    return json.loads(unescape(found[1]))


@pytest.mark.parametrize("width", ["phone", "desk"])
def test_no_page_is_wider_than_its_window(seen, width):
    assert seen[width]["overflow"] == 0


def test_a_phone_shows_every_column_with_its_heading(seen):
    assert seen["phone"]["cut"] == 0


def test_at_first_everything_of_the_first_evaluation_is_there(seen):
    page = seen["desk"]
    assert page["evaluation"] == "1" and page["pressed"] == [""] and not page["none"] and page["hash"] == ""
    assert set(page["outcomes"]) == {"won", "lost", "right", "wrong"}
    count = len(page["outcomes"])
    assert page["told"] == f"{count} of {count} pictures" and page["pictures"] and not any(page["zoomed"])


def test_a_click_filters_by_outcome_and_the_address_says_so(seen):
    page, all_of_them = seen["lost"], seen["desk"]["outcomes"]
    assert page["outcomes"] == ["lost"] * all_of_them.count("lost") and page["outcomes"]
    assert page["pressed"] == ["lost"] and page["hash"] == "#outcome=lost"
    assert page["told"] == f"{len(page['outcomes'])} of {len(all_of_them)} pictures"


def test_filters_add_up(seen):
    expected = [
        (o, c)
        for o, c in zip(seen["desk"]["outcomes"], seen["desk"]["categories"], strict=True)
        if (o, c) == ("lost", "cup")
    ]
    page = seen["cup"]
    assert list(zip(page["outcomes"], page["categories"], strict=True)) == expected
    assert seen["several"]["outcomes"] == [] and seen["nothing"]["none"]
    assert seen["nothing"]["hash"] == "#outcome=won&category=cup&group=several"


def test_taking_filters_back_shows_everything_again(seen):
    assert seen["all"]["outcomes"] == seen["desk"]["outcomes"] and seen["all"]["hash"] == ""


def test_zoom_and_tabs(seen):
    assert all(seen["zoom"]["zoomed"]) and not any(seen["all"]["zoomed"])
    assert seen["tab"]["evaluation"] == "2" and seen["tab"]["hash"] == "#zoom=1&evaluation=2"


def test_a_link_shows_what_its_sender_saw(seen):
    page = seen["link"]
    assert page["evaluation"] == "2" and page["outcomes"] and set(page["outcomes"]) == {"won"}
    assert set(page["categories"]) == {CATEGORIES[0]} and page["chosen"] == CATEGORIES[0] and all(page["zoomed"])


def test_an_address_that_means_nothing_shows_nothing_wrong(seen):
    page = seen["odd"]
    assert page["evaluation"] == "1" and page["outcomes"] == [] and page["none"] and page["pressed"] == []


def test_text_of_the_data_does_not_run(seen):
    assert not any(page["pwned"] for page in seen.values())

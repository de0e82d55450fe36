"""What the pages refer to exists: files, headings, functions; the picture of the packages shows the checked order."""

import ast
import re
import types
from pathlib import Path

import pytest
from docs_site import on_page_markdown
from draw_rooms import TARGET, drawing
from reference_pages import PAGES as PAGES_OF_CODE
from reference_pages import _prose

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
# What stands in a fenced block or in `code` is no link.
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
EXACT = ("architecture", "CONTRIBUTING", "SECURITY", "field_reports")  # pages whose files are looked up
LINK = re.compile(r"\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    """The path of a page in the repository."""
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    found: set[str] = set()
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found.add(name if name not in found else f"{name}-1")
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page):
    text = CODE.sub("", page.read_text())
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{link} does not exist"
        assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
        assert not anchor or anchor in anchors(target), f"{link}: there are {', '.join(sorted(anchors(target)))}"


def test_anchors_are_githubs(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# The `Grounder`, in ten lines\n## A-B c_d\n```\n# no heading\n```\n## A-B c_d\n")
    assert anchors(page) == {"the-grounder-in-ten-lines", "a-b-c_d", "a-b-c_d-1"}


@pytest.fixture(scope="module")
def architecture():
    return (ROOT / "docs" / "architecture.md").read_text()


def names_in(file: Path) -> set[str]:
    """The functions and classes of a module, and "Class.method"."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{n.name}" for n in node.body if isinstance(n, ast.FunctionDef)}
    return found


def test_the_path_of_a_frame_names_functions_that_exist(architecture):
    rows = re.findall(r"^\| (?:executor|model) \| `([^`]+)` \| `([^`]+)` \|", architecture, re.MULTILINE)
    assert len(rows) > 15
    for file, name in rows:
        assert name in names_in(ROOT / file), f"{file} has no {name}"


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent.name == "decisions" or p.stem in EXACT], ids=name_of)
def test_files_and_tests_that_a_page_names_exist(page, tests):
    text = page.read_text()
    places = set(
        re.findall(r"`((?:acs_core|acs_ros|config|launch|msg|requirements|test|tools|training)/[\w./]*)`", text)
    )
    missing = {place for place in places if not re.search("FAMILY|NAME", place) and not (ROOT / place).exists()}
    assert missing == set()
    assert set(re.findall(r"`(test_\w+)`", text)) <= tests


@pytest.fixture(scope="module")
def tests():
    """The names of all tests."""
    return {name for file in (ROOT / "test").rglob("test_*.py") for name in names_in(file)}


def test_classes_and_methods_that_the_architecture_names_exist(architecture):
    there = {
        n for room in ("acs_core", "acs_ros", "training") for f in (ROOT / room).rglob("*.py") for n in names_in(f)
    }
    named = set(re.findall(r"`([A-Z]\w*\.[a-z_]\w*)`", architecture))
    locks = {name for name in named if re.search(r"\._(\w*lock|changed|showing|sending)$", name)}
    assert len(named) > 15 and len(locks) > 8
    assert named - locks - there - {"LVLM.lock"} == set()
    sources = {f: f.read_text() for room in ("acs_core", "acs_ros") for f in (ROOT / room).rglob("*.py")}
    for lock in locks:
        owner, _, field = lock.partition(".")
        [source] = [text for text in sources.values() if re.search(rf"^class {owner}\b", text, re.MULTILINE)]
        assert f"self.{field} = threading." in source, lock


@pytest.mark.parametrize("name", PAGES_OF_CODE)
def test_reference_pages_are_those_of_the_code(name):
    assert (ROOT / "docs" / name).read_text() == PAGES_OF_CODE[name](), "run tools/reference_pages.py"


def test_docstrings_become_markdown():
    doc = """Return ``x``; see :func:`a.b`.

    Text::

    Args:
        x: first
            and more.

    Raises:
        ValueError, TypeError: it is wrong.
    """
    assert _prose(doc) == (
        "Return `x`; see `a.b`.\n\nText::\n\n**Args**\n\n- `x`: first\n  and more.\n\n**Raises**\n\n"
        "- `ValueError, TypeError`: it is wrong.\n"
    )
    assert _prose("Do.\n\n    box = 1\n    x = 2\n\nMore.") == "Do.\n\n```python\nbox = 1\nx = 2\n```\n\nMore.\n"


def test_every_page_is_in_the_navigation_of_the_site():
    named = set(re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert named == {str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[a](b.md#c) [d](../README.md#e)", "[a](b.md#c) d (`README.md` in the repository)"),
        ("```\n[d](../README.md)\n``` [x](https://a.b/c)", "```\n[d](../README.md)\n``` [x](https://a.b/c)"),
        ("![p](sample.png)", "![p](sample.png)"),
    ],
)
def test_links_that_lead_out_of_the_site_become_text(text, shown):
    file = types.SimpleNamespace(src_uri="page.md", abs_src_path=str(ROOT / "docs/page.md"))
    assert on_page_markdown(text, types.SimpleNamespace(file=file)) == shown


def test_the_readme_is_read_in_two_minutes():
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 900, "move something to docs/"
    for program in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        ast.parse(program)
        assert len([line for line in program.splitlines() if line]) <= 8


def test_the_picture_of_the_packages_is_that_of_their_order():
    assert TARGET.read_text() == drawing(), "run tools/draw_rooms.py"

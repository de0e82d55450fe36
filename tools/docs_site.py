"""Hooks of mkdocs (mkdocs.yml): links that lead out of docs/, and notebooks as pages.

The site has no pages for files of the repository outside docs/, such as CONTRIBUTING.md. A link to one is shown as its
text with the file's name. Whether the file exists is checked by test/test_docs.py.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
NOTEBOOK = re.compile(r"<!-- notebook: (\S+\.ipynb) -->")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the Markdown of a page with its notebooks, and without links that lead out of the site."""
    folder = posixpath.dirname(page.file.src_uri)
    with_notebooks = NOTEBOOK.sub(
        lambda found: notebook_as_markdown(Path(page.file.abs_src_path).parent / found[1]), markdown
    )

    def shown(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2].partition("#")[0]))
        if re.match("[a-z]+:|#", link[2]) or not target.startswith("../"):
            return link[0]
        return f"{link[1]} (`{target.removeprefix('../')}` in the repository)"

    return outside_code(with_notebooks, lambda text: LINK.sub(shown, text))


def outside_code(markdown: str, change: Any) -> str:
    """Return Markdown with ``change`` applied to all of it except fenced blocks."""
    parts, start = [], 0
    for block in CODE.finditer(markdown):
        parts += [change(markdown[start : block.start()]), block[0]]
        start = block.end()
    return "".join([*parts, change(markdown[start:])])


def notebook_as_markdown(file: Path) -> str:
    """Return the text and the code of a notebook as Markdown, its headings one level lower."""
    parts = []
    for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code":
            parts.append(f"```python\n{text}\n```")
        else:
            parts.append(re.sub(r"^#", "##", text, flags=re.MULTILINE))
    return "\n\n".join(parts)

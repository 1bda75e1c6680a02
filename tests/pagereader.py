"""Reads the pages that pvops writes, and shows them in a browser."""

from __future__ import annotations

import html
import html.parser
import re
import shutil
import subprocess
from pathlib import Path

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FRAME = """<body style="margin: 0"><iframe style="border: 0; width: {width}px; height: 900px" srcdoc="{page}"
onload="let it = contentDocument;
document.title = [it.documentElement.scrollWidth, it.querySelector('svg').clientWidth]">
</iframe>"""
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Reader(html.parser.HTMLParser):
    """Checks that elements are closed in order, and collects what the page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.scrolls: list[dict[str, str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(attrs)
        if ("class", "scroll") in attrs:
            self.scrolls.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def shown_widths(page: str, folder: Path, width: int) -> tuple[int, int]:
    """How wide a page and its first picture are in a browser's window of some width."""
    file = folder / "frame.html"
    file.write_text(FRAME.format(width=width, page=html.escape(page)), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile", "--dump-dom"]
    shown = subprocess.run(
        [str(BROWSER), *options, "--window-size=1400,900", file.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = re.search(r"<title>(\d+),(\d+)</title>", shown.stdout)
    assert found is not None, shown.stderr
    return int(found[1]), int(found[2])

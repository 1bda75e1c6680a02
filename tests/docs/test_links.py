"""Links between pages lead somewhere, also where Sphinx does not look, and every page can be found from the index."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from markdown_it.token import Token

ROOT = Path(__file__).parents[2]


def _pages() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.splitlines()]


def _links(page: Path) -> list[str]:
    """What a page links to or shows, without what is elsewhere."""

    def below(tokens: list[Token]) -> list[Token]:
        return [each for token in tokens for each in (token, *below(token.children or []))]

    tokens = below(MarkdownIt("gfm-like", {"linkify": False}).parse(page.read_text(encoding="utf-8")))
    found = [str(token.attrGet("href") or token.attrGet("src") or "") for token in tokens]
    return [link for link in found if link and not urlsplit(link).scheme]


@pytest.mark.parametrize("page", _pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    targets = [urlsplit(link).path for link in _links(page)]
    assert [target for target in targets if target and not (page.parent / target).exists()] == []


def test_the_index_leads_to_every_page() -> None:
    reached, new = set[Path](), {ROOT / "docs" / "README.md", ROOT / "docs" / "adr" / "README.md"}
    while new:
        page = new.pop()
        reached.add(page)
        if page.name == "README.md":
            new |= {(page.parent / urlsplit(link).path).resolve() for link in _links(page)} - reached
    assert [page for page in _pages() if "docs" in page.relative_to(ROOT).parts and page not in reached] == []


def test_the_site_has_every_page() -> None:
    listed = (ROOT / "docs" / "_toc.yml").read_text(encoding="utf-8").split()
    pages = [page.relative_to(ROOT / "docs") for page in _pages() if "docs" in page.relative_to(ROOT).parts]
    assert [page for page in pages if page.parent.name != "adr" and str(page.with_suffix("")) not in listed] == []

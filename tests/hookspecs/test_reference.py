"""The reference page in docs/ is what the specs and the catalogue say now."""

from __future__ import annotations

from pathlib import Path

from pvops_core.hookspecs.reference import page
from pvops_core.hookspecs.specs import specs

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "hooks.md"


def test_the_page_is_up_to_date() -> None:
    again = "run python -m pvops_core.hookspecs.reference > docs/reference/hooks.md"
    assert DOCS.read_text(encoding="utf-8") == page(), again


def test_every_hook_has_its_place_on_the_page() -> None:
    headings = [line.removeprefix("### ") for line in page().splitlines() if line.startswith("### ")]
    assert headings == list(specs())


def test_a_hook_shows_what_the_kernels_declare() -> None:
    section = page().partition("### set_pte\n")[2].partition("### ")[0]
    assert "* `void set_pte(pte_t *ptep, pte_t pteval)` (regparm(3)): 2.6.23 67" in section
    assert "* `void set_pte(pte_t *ptep, pte_t pteval)` (sysv): 6.1-64 58" in section
    assert "- ptep: pte_t *; guest-virtual address of the entry." in section

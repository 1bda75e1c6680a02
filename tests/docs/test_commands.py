"""The page of commands is what the commands say of themselves now."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pvops_core.cli import VERBS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"
MADE = ("utils", "docs", "--name", "pvops", "--title", "Commands")


@pytest.fixture(scope="module")
def page() -> str:
    command = [sys.executable, "-m", "typer", "pvops_core.cli", *MADE]
    environment = {**os.environ, "TERM": "dumb", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def test_the_page_is_up_to_date(page: str) -> None:
    assert PAGE.read_text(encoding="utf-8").strip() == page.strip(), "run make reference"


def test_every_verb_says_its_exit_codes(page: str) -> None:
    sections = dict(re.findall(r"^##+ `pvops ([\w -]+)`\n(.*?)(?=^##|\Z)", page, re.DOTALL | re.MULTILINE))
    assert sections.keys() >= VERBS.keys()
    silent = {name for name, text in sections.items() if "**Commands**" not in text and "Exit code: 0 " not in text}
    assert silent == set()


def test_no_summary_is_cut_short(page: str) -> None:
    assert [line for line in page.splitlines() if line.startswith("* `") and line.endswith("...")] == []

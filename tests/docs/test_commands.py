"""The page of commands is what the commands say of themselves now."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from pvops_core.cli import VERBS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "commands.md"
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


def shown(verbs: Iterable[str]) -> list[tuple[str, str, list[str]]]:
    """Page, verb and options of every command of ours on a page, those that no test can run among them."""
    found = []
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*/*/README.md"))):
        text = "" if file == PAGE or "_build" in file.parts else file.read_text(encoding="utf-8")
        for block in re.findall(r"^```(?:sh|console)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            for line in block.replace("\\\n", " ").splitlines():
                if command := re.match(r"(?:\$ )?(?:\S*/)?pvops (.*)", line.partition("  #")[0].partition(" | ")[0]):
                    words = command[1].split()
                    verb = " ".join(words[: 2 if " ".join(words[:2]) in verbs else 1])
                    verb = "study run" if verb == "study" else verb  # which need not be named
                    options = [word.partition("=")[0] for word in words if word.startswith("--")]
                    found.append((str(file.relative_to(ROOT)), verb, options))
    return found


def test_every_command_that_a_page_shows_is_one(page: str) -> None:
    """Some pages' commands boot for minutes, or fetch things, and are not run: their words are right all the same."""
    sections = dict(re.findall(r"^##+ `pvops ([\w -]+)`\n(.*?)(?=^##|\Z)", page, re.DOTALL | re.MULTILINE))
    commands = shown(sections)
    assert len(commands) > 50
    wrong = [
        (file, verb, option)
        for file, verb, options in commands
        for option in (options or [""])
        if not verb.startswith("-") and (verb not in sections or option not in sections[verb])
    ]
    assert wrong == []


def test_no_summary_is_cut_short(page: str) -> None:
    assert [line for line in page.splitlines() if line.startswith("* `") and line.endswith("...")] == []


def test_every_variable_is_described() -> None:
    sources = [path for room in ("pvops_core", "plugins", "tests") for path in (ROOT / room).rglob("*.py")]
    names = {name for path in sources for name in re.findall(r"\bPVOPS_[A-Z_]+\b", path.read_text(encoding="utf-8"))}
    text = (ROOT / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
    assert "PVOPS_PLUGINS" in names
    assert {name for name in names if f"`{name}`" not in text} <= {"PVOPS_MINE"}, "PVOPS_MINE is a test's own"

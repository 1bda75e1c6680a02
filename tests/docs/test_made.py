"""Pages that scripts make are what the scripts would make of them now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("script", "page"),
    [
        ("events.py", "reference/events.md"),
        ("fields.py", "reference/json.md"),
        ("plugin.py", "reference/pytest-plugin.md"),
        ("settings.py", "reference/settings.md"),
    ],
)
def test_the_page_is_up_to_date(script: str, page: str) -> None:
    command = [sys.executable, DOCS / "tools" / script]
    made = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    assert (DOCS / page).read_text(encoding="utf-8") == made, "run make reference"


def test_schemas_are_what_records_declare(tmp_path: Path) -> None:
    subprocess.run([sys.executable, DOCS / "tools" / "schema.py", tmp_path], check=True)
    made = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert made
    for name, text in made.items():
        assert (DOCS.parent / "schema" / name).read_text(encoding="utf-8") == text, "run make reference"


def test_the_pictures_are_up_to_date(tmp_path: Path) -> None:
    subprocess.run([sys.executable, DOCS / "tools" / "pictures.py", tmp_path], check=True)
    made = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert made
    there = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "explanation" / "pictures").iterdir()}
    assert there == made, "run make picture"
    for text in made.values():
        ET.fromstring(text)

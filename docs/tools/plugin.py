"""The page of the pytest plugin, of what pytest says of it.

``python docs/tools/plugin.py > docs/reference/pytest-plugin.md``
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from tempfile import TemporaryDirectory
from typing import Final

HEAD: Final = """# The pytest plugin

Installing `pvops-core` gives pytest these, made by `make reference` of `pytest --fixtures`, `--markers` and `--help`.
Nothing heavy is imported until a test asks for a fixture. [Testing a hook](testing-a-hook.md) shows how they are used.
"""
FIXTURE: Final = re.compile(r"^(\w+)(?: \[.*\])? -- \S+\n((?: {4}.*\n)+)", re.MULTILINE)
MARKER: Final = re.compile(r"^@pytest\.mark\.(pvops_.*?\)): (.*)$", re.MULTILINE)
OPTION: Final = re.compile(r"^  (--pvops-[\w-]+(?:=[\w=]+)?)\s+(.*)$", re.MULTILINE)
SETTING: Final = re.compile(r"^  (pvops_\w+ \(\w+\)):\s+(.*)$", re.MULTILINE)


def page() -> str:
    """The page as Markdown."""
    return "\n".join([HEAD, *_sections()])


def _sections() -> Iterator[str]:
    fixtures = _said("--fixtures").partition(" fixtures defined from pvops_core.testing.plugin ")[2].partition("\n--")
    yield "## Fixtures\n"
    yield _list((name, " ".join(text.split()).replace("``", "`")) for name, text in FIXTURE.findall(fixtures[0]))
    yield "## Markers\n"
    yield _list(MARKER.findall(_said("--markers")))
    told = _said("--help")
    yield "## Options\n"
    yield _list((name.replace("=", " ", 1), text) for name, text in OPTION.findall(told))
    yield "## Settings\n\nIn `pytest.ini` or under `[tool.pytest.ini_options]` of `pyproject.toml`.\n"
    yield _list(SETTING.findall(told))


def _said(option: str) -> str:
    """What pytest prints in an empty folder, on lines wide enough not to be wrapped."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", option, "-p", "no:cacheprovider"]
    with TemporaryDirectory() as folder:
        done = subprocess.run(  # noqa: S603 - ourselves
            command, check=True, capture_output=True, text=True, cwd=folder, env={**environment, "COLUMNS": "1000"}
        )
    return done.stdout


def _list(rows: Iterable[tuple[str, str]]) -> str:
    return "".join(f"* `{name}`: {text}\n" for name, text in rows)


if __name__ == "__main__":
    sys.stdout.write(page())

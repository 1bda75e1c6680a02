"""What the conformance suite says of each planted bug, as a page: ``python -m tests.testing.plantedtable``.

Run from the folder of the whole tree; a test sees that the page is what the suite says.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.testing import planted

FILE: Final = Path(planted.__file__)
SUITE: Final = "pvops_core.testing.conformance"
LAYOUTS: Final = "6.1-64,2.6.24-pae"
HEAD: Final = """# What conformance says of planted bugs

Each of these is planted in a backend of its own by `tests/testing/planted.py`. The suite is run on it, and this is the
first thing that it says; then come the law, the hook with file and line, and what its last call did. The page is made
by `make reference`.

| op | bug | test | what its failure says |
|---|---|---|---|
"""


def words(name: str) -> list[str]:
    """The words that pytest is to be given for one planted bug."""
    op, _what = planted.BUGS[name]
    chosen = ["--pvops-ops", op]
    if op in planted.ONLY_WHOLE:
        chosen = ["-k", f"{'test_patch_fits' if op == 'patch' else 'test_two_runs'} and 6.1-64-1cpu and not replace"]
    own = ["--pvops-plugin", f"{FILE}:{name}", "--pvops-backend", name, "--pvops-layouts", LAYOUTS]
    return ["-q", "--maxfail=1", "-c", os.devnull, "-p", "no:cacheprovider", *own, *chosen, "--pyargs", SUITE]


class First:
    """Keeps the first failure's test, and its first line."""

    def __init__(self) -> None:
        self.test = self.says = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.test:
            self.test = report.nodeid.rpartition("::")[2].partition("[")[0]
            crash = getattr(report.longrepr, "reprcrash", None)
            self.says = str(crash.message if crash else report.longrepr).splitlines()[0]


def first(name: str) -> First:
    """What the suite says first of a planted bug."""
    seen = First()
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(words(name), plugins=[seen])
    return seen


def row(name: str, test: str, says: str) -> str:
    """A line of the table."""
    op, what = planted.BUGS[name]
    said = re.sub(r"\S*tests/testing/planted", "planted", says).replace("|", "\\|")
    return f"| `{op}` | {what} | `{test}` | {said} |"


def rows() -> Iterator[str]:
    for name in planted.BUGS:
        seen = first(name)
        yield row(name, seen.test, seen.says)


if __name__ == "__main__":
    sys.stdout.write(HEAD)
    for line in rows():
        sys.stdout.write(f"{line}\n")

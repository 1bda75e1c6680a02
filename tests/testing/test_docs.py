"""The pages for authors say what there is: every marker, option, fixture and word."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pvops_core.testing import plugin
from pvops_core.testing.conformance.suite import Conformance

if TYPE_CHECKING:
    import pytest

pytest_plugins = ["pytester"]

DOCS = Path(__file__).parents[2] / "docs"
HOOK = (DOCS / "reference" / "testing-a-hook.md").read_text()
BACKEND = (DOCS / "how-to" / "writing-a-backend.md").read_text()


def test_every_marker_is_told() -> None:
    assert [name for name in plugin.MARKERS if f"`{name.partition('(')[0]}(" not in HOOK] == []


def test_every_option_is_told(pytester: pytest.Pytester) -> None:
    text = "\n".join(pytester.runpytest_inprocess("--help").outlines)
    options = set(re.findall(r"--pvops-[a-z]+", text))
    assert {"--pvops-backend", "--pvops-seed"} <= options
    assert [option for option in sorted(options) if option not in HOOK + BACKEND] == []


def test_every_test_of_the_suite_is_told() -> None:
    tests = [name for name in vars(Conformance) if name.startswith("test_")]
    assert tests
    assert [name for name in tests if f"`{name}`" not in BACKEND] == []

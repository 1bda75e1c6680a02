"""Objects are rebuilt where their compiler is, and in CI it must be."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvops_core.errors import PvopsError
from pvops_core.guests import toolchain
from tests.guests.toolchain import exact_toolchain


def test_ci_fails_where_the_compiler_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "toolchain", lambda: ("11.0.0", toolchain.LINKER))
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=toolchain.COMPILER):
        exact_toolchain()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception):
        exact_toolchain()


def test_what_a_failing_tool_said_is_told() -> None:
    with pytest.raises(PvopsError, match=r"python3 -c .* failed:\nno such thing"):
        toolchain.run(["python3", "-c", "import sys; sys.exit('no such thing')"], Path())

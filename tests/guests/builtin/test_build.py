"""The committed objects are what the source makes, byte for byte."""

from __future__ import annotations

import os

import pytest

from pvops_core.errors import UsageError
from pvops_core.guests.builtin import build


def exact_toolchain() -> bool:
    """Whether the exact compiler is here; in CI it must be."""
    found = build.toolchain()
    if found == (build.COMPILER, build.LINKER):
        return True
    wanted = f"gcc {build.COMPILER} and binutils {build.LINKER}"
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must rebuild the guest with {wanted}; it has {found}")
    pytest.skip(f"rebuilding the guest byte for byte needs {wanted} (Debian 12: apt-get install gcc binutils)")


@pytest.mark.parametrize("variant", build.VARIANTS.values(), ids=str)
def test_objects_are_what_the_source_makes(variant: build.Variant) -> None:
    assert exact_toolchain()
    assert build.build(variant) == variant.path.read_bytes(), "run `make guest` and commit the objects"


def test_ci_fails_where_the_compiler_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "toolchain", lambda: ("11.0.0", build.LINKER))
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=build.COMPILER):
        exact_toolchain()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception):
        exact_toolchain()


def test_unknown_layout_is_refused() -> None:
    with pytest.raises(UsageError, match="nosuch"):
        build.main(["nosuch"])

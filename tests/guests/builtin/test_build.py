"""The committed objects are what the source makes, byte for byte."""

from __future__ import annotations

import pytest

from pvops_core.errors import UsageError
from pvops_core.guests.builtin import build
from tests.guests.toolchain import exact_toolchain


@pytest.mark.parametrize("variant", build.VARIANTS.values(), ids=str)
def test_objects_are_what_the_source_makes(variant: build.Variant) -> None:
    assert exact_toolchain()
    assert build.build(variant) == variant.path.read_bytes(), "run `make guest` and commit the objects"


def test_unknown_layout_is_refused() -> None:
    with pytest.raises(UsageError, match="nosuch"):
        build.main(["nosuch"])

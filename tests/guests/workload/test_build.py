"""The committed programs are what the source makes, byte for byte."""

from __future__ import annotations

import pytest

from pvops_core.guests.workload import build
from pvops_core.guests.workload.program import program_path
from tests.guests.toolchain import exact_toolchain


@pytest.mark.parametrize("how", build.BUILDS, ids=lambda how: str(how.bits))
def test_objects_are_what_the_source_makes(how: build.ProgramBuild) -> None:
    assert exact_toolchain()
    assert build.build(how) == program_path(how.bits).read_bytes(), "run `make guest` and commit the objects"

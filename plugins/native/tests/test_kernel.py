"""A kernel on bare metal fills no slot itself."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pvops_native.kernel import NativeKernel

from pvops_core.ops import LAYOUTS


@settings(deadline=None)
@given(layout=st.sampled_from(sorted(LAYOUTS)), cpus=st.integers(1, 64))
def test_nothing_is_filled_in_or_forced_on_any_number_of_processors(layout: str, cpus: int) -> None:
    image: Any = None
    assert NativeKernel().slots(image, LAYOUTS[layout], cpus) == {}
    assert NativeKernel().features(image, cpus) == frozenset()

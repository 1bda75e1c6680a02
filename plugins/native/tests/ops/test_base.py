"""What every group of ops starts from."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pvops_native.ops.base import NativeGroup

from pvops_core.guest.own import OwnFunction
from pvops_core.ops import LAYOUTS


def group(layout: str, *, own_functions: bool = False) -> NativeGroup:
    environment: Any = SimpleNamespace(layout=LAYOUTS[layout], guest=SimpleNamespace(own_functions=own_functions))
    return NativeGroup(environment)


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_the_width_is_the_layout_s(layout: str) -> None:
    assert group(layout).wide is (LAYOUTS[layout].kind.bits == 64)


def test_a_call_is_left_only_to_a_guest_that_has_a_function_for_it() -> None:
    group("6.1-64").leave("nobody is there")
    with pytest.raises(OwnFunction, match="somebody is"):
        group("6.1-64", own_functions=True).leave("somebody is")

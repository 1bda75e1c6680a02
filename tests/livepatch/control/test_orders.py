"""What is to be done to a kernel's live patches, as data."""

from __future__ import annotations

import pytest

from pvops_core.livepatch.control.orders import NOTHING, PatchOrders


@pytest.mark.parametrize(
    ("orders", "wanted"),
    [
        (NOTHING, False),
        (PatchOrders(script="1ns list"), True),
        (PatchOrders(socket="s"), True),
        (PatchOrders(path="p"), False),
    ],
)
def test_a_script_or_a_socket_is_something_to_do(orders: PatchOrders, wanted: bool) -> None:  # noqa: FBT001 - given
    assert orders.wanted is wanted

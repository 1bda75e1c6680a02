"""A call that is left to the guest's own function."""

from __future__ import annotations

from pvops_core.guest.own import OwnFunction


def test_the_reason_is_kept_and_told() -> None:
    left = OwnFunction("identifiers of user spaces")
    assert left.reason == str(left) == "identifiers of user spaces"

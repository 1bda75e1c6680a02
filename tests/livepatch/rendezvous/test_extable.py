"""Exceptions that applied payloads expect."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pvops_core.livepatch.rendezvous.extable import VECTORS, Fixups
from pvops_core.x86 import DB, DF, GP, NMI, PF


def met(vector: int, *, missing: bool = False, address: int | None = None) -> tuple[bool, int]:
    """Whether an exception is served, and where the vCPU goes on."""
    vcpu: Any = SimpleNamespace(rip=0x1000)
    fixups = Fixups({0x1000: 0x2000}.get, lambda _vcpu, _address: missing)
    return fixups.exception(vcpu, vector, 0, address), vcpu.rip


@pytest.mark.parametrize("vector", sorted(VECTORS))
def test_a_fault_goes_on_where_the_table_says(vector: int) -> None:
    assert met(vector) == (True, 0x2000)


@pytest.mark.parametrize("vector", [DB, NMI, DF, PF])
def test_others_are_the_guest_s(vector: int) -> None:
    assert vector not in VECTORS
    assert met(vector, address=0x5000) == (False, 0x1000)


def test_a_page_that_was_missing_in_this_address_space_is_tried_again() -> None:
    assert met(PF, missing=True, address=0x5000) == (True, 0x1000)
    assert met(GP, missing=True) == (True, 0x2000)

"""A process of a PV guest that uses an address that is not canonical: #SS through the stack segment, else #GP."""

from __future__ import annotations

import pytest
from pvops_xen.testing.guests import SmallGuest

from pvops_core.x86 import GP, SS


@pytest.mark.parametrize(("code", "vector"), [
    ("mov eax, [rcx]", GP), ("mov eax, [rbp]", SS), ("mov eax, [rsp + rcx]", SS), ("mov eax, fs:[rbp]", GP),
    ("mov rsp, rcx\n push rax", SS), ("mov rsp, rcx\n pop rax", SS), ("mov rsp, rcx\n ret", SS), ("leave", SS),
])  # fmt: skip
def test_the_guest_gets_the_vector_of_the_segment(code: str, vector: int) -> None:
    with SmallGuest(64) as guest:
        outcome = guest.execute_as_user(f"mov rcx, 0x8000000040000000\n mov rbp, rcx\n {code}")
        assert (outcome.kind, outcome.vector, outcome.error) == ("trap", vector, 0)

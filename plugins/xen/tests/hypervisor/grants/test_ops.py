"""Grant tables: what a domain can do with its own, what it cannot do with others', and that references are counted."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pvops_xen.hypervisor.abi import EFAULT, EINVAL, ENOSYS
from pvops_xen.hypervisor.grants import ops
from pvops_xen.hypervisor.grants.state import GrantOp

if TYPE_CHECKING:
    import pytest

from plugins.xen.tests.grants_rig import ARGUMENT, FRAME, Grants


def test_calls_that_make_no_sense(grants: Grants) -> None:
    assert grants.bench.call(20, GrantOp.DUMP_TABLE, grants.bench.va(ARGUMENT), 1) == -ENOSYS
    assert grants.bench.call(20, 99, 0, 1) == -ENOSYS
    assert grants.bench.call(20, GrantOp.MAP_GRANT_REF, grants.bench.va(ARGUMENT), 1 << 31) == -EINVAL
    assert grants.bench.call(20, 1 << 12, grants.bench.va(ARGUMENT), 1) == -EINVAL
    assert grants.bench.call(20, GrantOp.QUERY_SIZE, grants.bench.va(ARGUMENT), 2) == -EINVAL


def test_long_arrays_are_gone_on_with(grants: Grants, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "STRETCH", 3)
    for ref in range(8, 18):
        grants.grant(ref, FRAME)
    result, raw = grants.op(GrantOp.SWAP_GRANT_REF, struct.pack("<IIhxx", 8, 9, -99) * 10, 10)
    assert (result, raw[8::12], raw[9::12]) == (0, bytes(10), bytes(10))
    assert grants.bench.platform.hypercalls["grant_table_op"] == 4
    assert grants.bench.call(20, GrantOp.COPY, grants.bench.va(ARGUMENT), 1 << 30) == -EFAULT

"""The table: it grows, has two versions, and is the guest's to map."""

from __future__ import annotations

import struct

from pvops_xen.hypervisor.abi import EBUSY, EINVAL, EPERM, ESRCH
from pvops_xen.hypervisor.grants import table
from pvops_xen.hypervisor.grants.state import Active, GrantOp, GrantStatus, Gtf

from plugins.xen.tests.grants_rig import DOM0, FRAME, LIST, NOBODY, SELF, TARGET, Grants


def test_the_table_grows_to_its_limit_and_no_further(grants: Grants) -> None:
    status, first = grants.setup(1)
    assert status == GrantStatus.OKAY
    status, frames = grants.setup(64)
    assert (status, frames[:1]) == (GrantStatus.OKAY, first)
    assert len(set(frames)) == 64
    assert grants.setup(65)[0] == GrantStatus.GENERAL_ERROR
    assert grants.setup(1, DOM0)[0] == GrantStatus.PERMISSION_DENIED
    assert grants.setup(1, NOBODY)[0] == GrantStatus.BAD_DOMAIN
    result, raw = grants.op(GrantOp.QUERY_SIZE, struct.pack("<H2xIIhxx", SELF, 0, 0, -99))
    assert (result, struct.unpack("<H2xIIhxx", raw)) == (0, (SELF, 64, 64, 0))
    grants.audit()


def test_the_frames_are_the_guests_to_map_but_no_page_tables(grants: Grants) -> None:
    bench = grants.bench
    _, (mfn,) = grants.setup(1)
    entry = mfn << 12 | 0x63
    assert bench.call(14, bench.va(TARGET), *((entry, 0) if grants.wide else (entry, 0, 0))) == 0
    bench.cpu.write_virtual(bench.va(TARGET), b"entry")
    assert grants.hv.memory.read(mfn << 12, 5) == b"entry"
    assert bench.mmuext(0, mfn) < 0
    grants.audit()


def test_versions(grants: Grants) -> None:
    assert grants.version(1) == (0, 1)
    assert grants.version(3) == (-EINVAL, 1)
    table.write_entry(grants.hv, 0, table.GrantEntry(Gtf.PERMIT_ACCESS | Gtf.READING, 0, 0x77))
    grants.grant(20, FRAME)
    assert grants.version(2) == (0, 2)
    assert table.read_entry(grants.hv, 0) == table.GrantEntry(Gtf.PERMIT_ACCESS, 0, 0x77)
    assert table.read_status(grants.hv, 0) == Gtf.READING
    assert table.read_entry(grants.hv, 20).flags == 0, "only the toolstack's entries are kept"
    where = grants.bench.va(LIST)
    request = struct.pack("<IHhQ" if grants.wide else "<IHhI", 1, SELF, 0, where)
    result, raw = grants.op(GrantOp.GET_STATUS_FRAMES, request)
    assert (result, struct.unpack_from("<h", raw, 6)[0]) == (0, 0)
    assert grants.bench.cpu.u64(where) == grants.hv.domain.grants.status[0]
    result, raw = grants.op(GrantOp.GET_VERSION, struct.pack("<HHI", SELF, 0, 0))
    assert (result, struct.unpack_from("<I", raw, 4)[0]) == (0, 2)
    assert grants.op(GrantOp.GET_VERSION, struct.pack("<HHI", DOM0, 0, 0))[0] == -EPERM
    assert grants.op(GrantOp.GET_VERSION, struct.pack("<HHI", NOBODY, 0, 0))[0] == -ESRCH
    table.write_entry(grants.hv, 1, table.GrantEntry(Gtf.TRANSITIVE, 0, 0))
    assert grants.version(1) == (-34, 2)
    table.write_entry(grants.hv, 1, table.GrantEntry(0, 0, 0))
    assert grants.version(1) == (0, 1)
    assert table.read_entry(grants.hv, 0).flags == Gtf.PERMIT_ACCESS | Gtf.READING
    grants.audit()


def test_status_frames_that_are_mapped_stay(grants: Grants) -> None:
    grants.version(2)
    entry = grants.hv.domain.grants.status[0] << 12 | 0x61
    assert grants.bench.call(14, grants.bench.va(TARGET), *((entry, 0) if grants.wide else (entry, 0, 0))) == 0
    assert grants.version(1) == (-EBUSY, 2)
    grants.audit()


def test_swapping(grants: Grants) -> None:
    grants.grant(9, FRAME)
    grants.grant(10, TARGET, Gtf.PERMIT_ACCESS | Gtf.READONLY)

    def swap(first: int, second: int) -> int:
        _, raw = grants.op(GrantOp.SWAP_GRANT_REF, struct.pack("<IIhxx", first, second, 0))
        status: int = struct.unpack_from("<h", raw, 8)[0]
        return status

    assert swap(9, 10) == GrantStatus.OKAY
    assert table.read_entry(grants.hv, 9).frame == grants.bench.mfn(TARGET)
    assert swap(9, 9) == GrantStatus.OKAY
    assert swap(9, 512) == GrantStatus.BAD_GNTREF
    grants.hv.domain.grants.active[10] = Active(DOM0, grants.bench.mfn(FRAME), readers=1)
    assert swap(9, 10) == GrantStatus.EAGAIN
    del grants.hv.domain.grants.active[10]

"""Frames and bytes that are moved by grants."""

from __future__ import annotations

import struct

from pvops_xen.hypervisor.abi import EINVAL, EOPNOTSUPP, EPERM
from pvops_xen.hypervisor.grants import table
from pvops_xen.hypervisor.grants.state import GrantOp, GrantStatus, Gtf

from plugins.xen.tests.grants_rig import DOM0, FRAME, NOBODY, OWN, SELF, TARGET, Grants


def test_copies(grants: Grants) -> None:
    bench = grants.bench
    grants.grant(9, FRAME)
    grants.grant(10, TARGET, Gtf.PERMIT_ACCESS | Gtf.READONLY)
    bench.write(FRAME, b"source bytes")
    frame, target = bench.mfn(FRAME), bench.mfn(TARGET)
    assert grants.copy((frame, SELF, 0), (target, SELF, 100), 12, 0) == GrantStatus.OKAY
    assert bench.cpu.read_virtual(bench.va(TARGET) + 100, 12) == b"source bytes"
    assert grants.copy((9, OWN, 7), (target, SELF, 0), 5, 1) == GrantStatus.OKAY
    assert bench.cpu.read_virtual(bench.va(TARGET), 5) == b"bytes"
    assert grants.copy((frame, OWN, 0), (target, SELF, 0), 5, 0) == GrantStatus.PERMISSION_DENIED
    assert grants.copy((9, NOBODY, 0), (target, SELF, 0), 5, 1) == GrantStatus.BAD_DOMAIN
    assert grants.copy((9, DOM0, 0), (target, SELF, 0), 5, 1) == GrantStatus.GENERAL_ERROR
    assert grants.copy((9, SELF, 4090), (target, SELF, 0), 7, 1) == GrantStatus.BAD_COPY_ARG
    assert grants.copy((frame, SELF, 0), (10, SELF, 0), 5, 2) == GrantStatus.GENERAL_ERROR
    assert grants.copy((frame, SELF, 0), (bench.mfn(0x200), SELF, 0), 5, 0) == GrantStatus.GENERAL_ERROR
    assert grants.copy((1 << 30, SELF, 0), (target, SELF, 0), 5, 0) == GrantStatus.BAD_PAGE
    assert not grants.hv.domain.grants.active
    grants.audit()


def test_parts_of_frames_are_copied_and_not_mapped(grants: Grants) -> None:
    grants.version(2)
    grants.grant(9, FRAME, Gtf.PERMIT_ACCESS | Gtf.SUB_PAGE, part=16 | 8 << 16)
    target = grants.bench.mfn(TARGET)
    assert grants.copy((9, SELF, 16), (target, SELF, 0), 8, 1) == GrantStatus.OKAY
    assert grants.copy((9, SELF, 15), (target, SELF, 0), 8, 1) == GrantStatus.GENERAL_ERROR
    assert grants.copy((9, SELF, 20), (target, SELF, 0), 8, 1) == GrantStatus.GENERAL_ERROR
    assert grants.map(grants.bench.va(TARGET), 9)[0] == GrantStatus.GENERAL_ERROR
    grants.audit()


def test_transfers(grants: Grants) -> None:
    bench = grants.bench

    def transfer(mfn: int, domid: int, ref: int) -> int:
        result, raw = grants.op(
            GrantOp.TRANSFER, struct.pack("<QH2xIhxxxxxx" if grants.wide else "<IH2xIhxx", mfn, domid, ref, 0)
        )
        assert result == 0
        status: int = struct.unpack_from("<h", raw, 16 if grants.wide else 12)[0]
        return status

    frame = bench.mfn(FRAME)
    assert transfer(frame, OWN, 9) == GrantStatus.BAD_PAGE, "it is still mapped"
    for pfn in (FRAME, TARGET):
        assert bench.call(14, bench.va(pfn), *((0, 0) if grants.wide else (0, 0, 0))) == 0
    table.write_entry(grants.hv, 9, table.GrantEntry(Gtf.ACCEPT_TRANSFER, OWN, 0x55))
    assert transfer(frame, OWN, 9) == GrantStatus.OKAY
    entry = table.read_entry(grants.hv, 9)
    assert (entry.flags, entry.frame) == (Gtf.ACCEPT_TRANSFER | 4 | 8, frame)
    assert transfer(bench.mfn(TARGET), NOBODY, 9) == GrantStatus.BAD_DOMAIN, "and the frame is lost"
    assert transfer(bench.mfn(TARGET), OWN, 9) == GrantStatus.BAD_PAGE
    grants.audit()


def test_caches(grants: Grants) -> None:
    def flush(address: int, offset: int, length: int, what: int) -> int:
        return grants.op(GrantOp.CACHE_FLUSH, struct.pack("<QHHI", address, offset, length, what))[0]

    own = grants.bench.mfn(FRAME) << 12
    assert flush(own, 0, 64, 1) == flush(own, 0, 64, 3) == flush(own, 0, 0, 1) == flush(own, 0, 9, 0) == 0
    assert flush(own, 0, 64, 2) == -EOPNOTSUPP
    assert flush(own, 4090, 64, 1) == flush(own, 0, 64, 4) == flush(1 << 50, 0, 64, 1) == -EINVAL
    assert flush(1 << 12, 0, 64, 1) == -EPERM

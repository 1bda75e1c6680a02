"""Grant tables: what a domain can do with its own, what it cannot do with others', and that references are counted."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pvops_xen.hypervisor.abi import EBUSY, EFAULT, EINVAL, ENOSYS, EOPNOTSUPP, EPERM, ESRCH
from pvops_xen.hypervisor.grants import ops, table
from pvops_xen.hypervisor.grants.state import Active, GntMap, GrantOp, GrantStatus, Gtf
from pvops_xen.hypervisor.memory.audit import audit

from pvops_core.kinds import MachineKind

if TYPE_CHECKING:
    from conftest import Bench

ARGUMENT, LIST, FRAME, TARGET = 0x110, 0x111, 0x300, 0x301
SELF, OWN, DOM0, NOBODY = 0x7FF0, 1, 0, 9
MAP = GntMap.HOST_MAP


class Grants:
    """A domain's calls, each with one request."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.hv = bench.platform.hv
        self.wide = bench.word == 8

    def op(self, command: int, request: bytes, count: int = 1) -> tuple[int, bytes]:
        address = self.bench.write(ARGUMENT, request)
        result = self.bench.call(20, command, address, count)
        return result, self.bench.cpu.read_virtual(address, max(len(request), 1))

    def setup(self, frames: int, domid: int = SELF) -> tuple[int, list[int]]:
        where = self.bench.va(LIST)
        request = struct.pack("<H2xI8xQ" if self.wide else "<H2xI4xI", domid, frames, where)
        result, answer = self.op(GrantOp.SETUP_TABLE, request)
        assert result == 0
        raw = self.bench.cpu.read_virtual(where, frames * self.bench.word)
        found = struct.unpack(f"<{frames}{'Q' if self.wide else 'I'}", raw)
        return struct.unpack_from("<h", answer, 8)[0], list(found)

    def version(self, number: int) -> tuple[int, int]:
        result, raw = self.op(GrantOp.SET_VERSION, struct.pack("<I", number))
        return result, struct.unpack("<I", raw)[0]

    def grant(self, ref: int, pfn: int, flags: int = Gtf.PERMIT_ACCESS, domid: int = OWN, part: int = 0) -> None:
        table.write_entry(self.hv, ref, table.GrantEntry(flags, domid, self.bench.mfn(pfn), part & 0xFFFF, part >> 16))

    def map(self, address: int, ref: int, flags: int = MAP, domid: int = OWN) -> tuple[int, int, int]:
        request = struct.pack("<QIIHhIQ", address, flags, ref, domid, 0, 0, 0)
        result, raw = self.op(GrantOp.MAP_GRANT_REF, request)
        assert result == 0
        status, handle, bus = struct.unpack_from("<hIQ", raw, 18)
        return status, handle, bus

    def unmap(self, handle: int, address: int, bus: int = 0) -> int:
        result, raw = self.op(GrantOp.UNMAP_GRANT_REF, struct.pack("<QQIhxx", address, bus, handle, 0))
        assert result == 0
        status: int = struct.unpack_from("<h", raw, 20)[0]
        return status

    def copy(self, source: tuple[int, int, int], dest: tuple[int, int, int], length: int, flags: int) -> int:
        pattern = "<QHH4xQHH4xHHhxx" if self.wide else "<IHHIHHHHhxx"
        result, raw = self.op(GrantOp.COPY, struct.pack(pattern, *source, *dest, length, flags, 0))
        assert result == 0
        status: int = struct.unpack_from("<h", raw, 36 if self.wide else 20)[0]
        return status

    def audit(self) -> None:
        assert [str(finding) for finding in audit(self.hv)] == []


@pytest.fixture
def grants(bench: Bench) -> Grants:
    return Grants(bench)


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


@pytest.mark.parametrize("version", [1, 2])
def test_a_grant_to_oneself_is_mapped_and_unmapped(grants: Grants, version: int) -> None:
    grants.version(version)
    bench, where = grants.bench, grants.bench.va(TARGET)
    grants.grant(9, FRAME)
    status, handle, bus = grants.map(where, 9)
    assert (status, bus) == (GrantStatus.OKAY, bench.mfn(FRAME) << 12)
    assert table.read_status(grants.hv, 9) & Gtf.WRITING
    bench.cpu.write_virtual(where + 5, b"granted")
    assert bench.cpu.read_virtual(bench.va(FRAME) + 5, 7) == b"granted"
    grants.audit()
    assert grants.version(3 - version)[0] == -EBUSY
    assert grants.unmap(handle, where, bus + 4096) == GrantStatus.GENERAL_ERROR
    assert grants.unmap(handle, bench.va(0x320)) == GrantStatus.GENERAL_ERROR
    assert grants.unmap(handle, where) == GrantStatus.OKAY
    assert not table.read_status(grants.hv, 9) & Gtf.WRITING
    assert grants.unmap(handle, where) == GrantStatus.BAD_HANDLE
    assert not grants.hv.domain.grants.active
    grants.audit()


def test_mappings_that_are_refused_leave_nothing(grants: Grants) -> None:
    where = grants.bench.va(TARGET)
    for ref, flags, domid in ((9, Gtf.PERMIT_ACCESS, DOM0), (10, Gtf.ACCEPT_TRANSFER, OWN), (11, 0, OWN)):
        grants.grant(ref, FRAME, flags, domid)
    grants.grant(12, FRAME, Gtf.PERMIT_ACCESS | Gtf.READONLY)
    grants.grant(13, 0x200)
    grants.grant(14, FRAME)
    table.write_entry(grants.hv, 15, table.GrantEntry(Gtf.PERMIT_ACCESS, OWN, 1))
    found = {
        "no kind of mapping": grants.map(where, 14, 0)[0],
        "nobody": grants.map(where, 14, MAP, NOBODY)[0],
        "oneself by another name": grants.map(where, 14, MAP, SELF)[0],
        "dom0": grants.map(where, 14, MAP, DOM0)[0],
        "beyond dom0's": grants.map(where, 512, MAP, DOM0)[0],
        "beyond": grants.map(where, 512)[0],
        "not to us": grants.map(where, 9)[0],
        "a transfer": grants.map(where, 10)[0],
        "nothing": grants.map(where, 11)[0],
        "for reading": grants.map(where, 12)[0],
        "a page table": grants.map(where, 13)[0],
        "nowhere": grants.map(0x1000, 14)[0],
        "unaligned": grants.map(0x1004, 14, MAP | GntMap.CONTAINS_PTE)[0],
        "no page table": grants.map(grants.bench.mfn(FRAME) << 12, 14, MAP | GntMap.CONTAINS_PTE)[0],
        "Xen's frame": grants.map(where, 15)[0],
    }
    assert found == {
        "no kind of mapping": GrantStatus.BAD_GNTREF,
        "nobody": GrantStatus.BAD_DOMAIN,
        "oneself by another name": GrantStatus.BAD_DOMAIN,
        "dom0": GrantStatus.GENERAL_ERROR,
        "beyond dom0's": GrantStatus.BAD_GNTREF,
        "beyond": GrantStatus.BAD_GNTREF,
        "not to us": GrantStatus.GENERAL_ERROR,
        "a transfer": GrantStatus.GENERAL_ERROR,
        "nothing": GrantStatus.GENERAL_ERROR,
        "for reading": GrantStatus.GENERAL_ERROR,
        "a page table": GrantStatus.GENERAL_ERROR,
        "nowhere": GrantStatus.GENERAL_ERROR,
        "unaligned": GrantStatus.GENERAL_ERROR,
        "no page table": GrantStatus.GENERAL_ERROR,
        "Xen's frame": GrantStatus.BAD_PAGE,
    }
    assert not grants.hv.domain.grants.active
    assert not grants.hv.domain.grants.mappings
    for ref in range(9, 15):
        assert not table.read_status(grants.hv, ref) & (Gtf.READING | Gtf.WRITING)
    grants.audit()


def test_a_mapping_overwritten_by_hand_gives_its_references_back_once(grants: Grants) -> None:
    bench, where = grants.bench, grants.bench.va(TARGET)
    grants.grant(9, FRAME)
    _, handle, _ = grants.map(where, 9)
    assert bench.set_mapping(TARGET, writable=True) == 0
    grants.audit()
    assert grants.unmap(handle, where) == GrantStatus.GENERAL_ERROR
    grants.audit()


def test_mappings_for_devices_hold_the_frame(grants: Grants) -> None:
    grants.grant(9, FRAME)
    status, handle, bus = grants.map(grants.bench.va(TARGET), 9, GntMap.HOST_MAP | GntMap.DEVICE_MAP | GntMap.READONLY)
    assert status == GrantStatus.OKAY
    grants.audit()
    assert grants.unmap(handle, grants.bench.va(TARGET)) == GrantStatus.OKAY
    grants.audit()
    assert handle in grants.hv.domain.grants.mappings
    assert grants.unmap(handle, 0, bus) == GrantStatus.OKAY
    assert handle not in grants.hv.domain.grants.mappings
    grants.audit()


def test_unmap_and_replace_moves_an_entry(grants: Grants) -> None:
    bench = grants.bench
    grants.grant(9, FRAME)
    _, handle, _ = grants.map(bench.va(TARGET), 9)
    bench.cpu.write_virtual(bench.va(0x302), b"moved")
    request = struct.pack("<QQIhxx", bench.va(TARGET), bench.va(0x302), handle, 0)
    result, raw = grants.op(GrantOp.UNMAP_AND_REPLACE, request)
    assert (result, struct.unpack_from("<h", raw, 20)[0]) == (0, GrantStatus.OKAY)
    assert bench.cpu.read_virtual(bench.va(TARGET), 5) == b"moved"
    grants.audit()


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


def test_caches(grants: Grants) -> None:
    def flush(address: int, offset: int, length: int, what: int) -> int:
        return grants.op(GrantOp.CACHE_FLUSH, struct.pack("<QHHI", address, offset, length, what))[0]

    own = grants.bench.mfn(FRAME) << 12
    assert flush(own, 0, 64, 1) == flush(own, 0, 64, 3) == flush(own, 0, 0, 1) == flush(own, 0, 9, 0) == 0
    assert flush(own, 0, 64, 2) == -EOPNOTSUPP
    assert flush(own, 4090, 64, 1) == flush(own, 0, 64, 4) == flush(1 << 50, 0, 64, 1) == -EINVAL
    assert flush(1 << 12, 0, 64, 1) == -EPERM


def test_calls_that_make_no_sense(grants: Grants) -> None:
    assert grants.bench.call(20, GrantOp.DUMP_TABLE, grants.bench.va(ARGUMENT), 1) == -ENOSYS
    assert grants.bench.call(20, 99, 0, 1) == -ENOSYS
    assert grants.bench.call(20, GrantOp.MAP_GRANT_REF, grants.bench.va(ARGUMENT), 1 << 31) == -EINVAL
    assert grants.bench.call(20, 1 << 12, grants.bench.va(ARGUMENT), 1) == -EINVAL
    assert grants.bench.call(20, GrantOp.QUERY_SIZE, grants.bench.va(ARGUMENT), 2) == -EINVAL


@pytest.mark.parametrize("kind", [MachineKind.X86_64, MachineKind.PAE], ids=["64", "pae"])
def test_whatever_is_asked_every_reference_has_a_holder(make_bench: Callable[..., Bench], kind: MachineKind) -> None:
    grants = Grants(make_bench(kind))
    refs, pfns = st.integers(8, 12), st.sampled_from([FRAME, TARGET, 0x200, 0x201, 0x302])
    places = st.sampled_from([grants.bench.va(pfn) for pfn in (TARGET, 0x303, 0x304, 0x200)])
    flags = st.integers(0, 31)
    step = st.one_of(
        st.tuples(st.just("version"), st.integers(1, 2)),
        st.tuples(st.just("grant"), refs, pfns, st.sampled_from([0, 1, 2, 3, 5, 0x101]), st.integers(0, 1)),
        st.tuples(st.just("map"), places, refs, flags, st.integers(0, 1)),
        st.tuples(st.just("unmap"), st.integers(0, 3), places, st.sampled_from([0, grants.bench.mfn(FRAME) << 12])),
        st.tuples(st.just("copied"), refs, refs, st.integers(0, 3)),
        st.tuples(st.just("set_mapping"), pfns),
        st.tuples(st.just("pin"), pfns),
    )

    @settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(step, max_size=12))
    def play(steps: list[tuple[str, int]]) -> None:
        for name, *arguments in steps:
            if name == "copied":
                grants.copy((arguments[0], SELF, 0), (arguments[1], SELF, 8), 16, arguments[2])
            elif name == "set_mapping":
                grants.bench.set_mapping(arguments[0], writable=True)
            elif name == "pin":
                grants.bench.mmuext(0, grants.bench.mfn(arguments[0]))
            else:
                getattr(grants, name)(*arguments)
        grants.audit()

    play()


def test_long_arrays_are_gone_on_with(grants: Grants, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "STRETCH", 3)
    for ref in range(8, 18):
        grants.grant(ref, FRAME)
    result, raw = grants.op(GrantOp.SWAP_GRANT_REF, struct.pack("<IIhxx", 8, 9, -99) * 10, 10)
    assert (result, raw[8::12], raw[9::12]) == (0, bytes(10), bytes(10))
    assert grants.bench.platform.hypercalls["grant_table_op"] == 4
    assert grants.bench.call(20, GrantOp.COPY, grants.bench.va(ARGUMENT), 1 << 30) == -EFAULT

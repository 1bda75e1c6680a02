"""Grants that are mapped: references are counted, and given back once."""

from __future__ import annotations

import struct

import pytest
from pvops_xen.hypervisor.abi import EBUSY
from pvops_xen.hypervisor.grants import table
from pvops_xen.hypervisor.grants.state import GntMap, GrantOp, GrantStatus, Gtf

from plugins.xen.tests.grants_rig import DOM0, FRAME, MAP, NOBODY, OWN, SELF, TARGET, Grants


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

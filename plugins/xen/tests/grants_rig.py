"""A domain that grants to itself."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pvops_xen.hypervisor.grants import table
from pvops_xen.hypervisor.grants.state import GntMap, GrantOp, Gtf
from pvops_xen.hypervisor.memory.audit import audit

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

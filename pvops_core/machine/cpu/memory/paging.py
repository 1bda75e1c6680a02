"""The page walk in software, as the CPU does it: permissions, reserved bits, large pages and error codes.

Source: Intel SDM volume 3, chapter 4. The physical address width is that of the engine, 40 bits.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

import attrs

from pvops_core.machine.cpu.faults import PageFault, general_protection
from pvops_core.x86 import (
    ADDRESS,
    CANONICAL_TOPS,
    CR0_PG,
    CR0_WP,
    CR4_PAE,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    EFER_LMA,
    EFER_NXE,
    LARGE,
    NO_EXECUTE,
    PRESENT,
    USER,
    WRITABLE,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine.memory import PhysicalMemory

PHYSICAL_BITS = 40

_HIGH_RESERVED = ADDRESS & ~((1 << PHYSICAL_BITS) - 1)
_HIGH_IGNORED = 0x7FF0000000000000  # bits 52 to 62: ignored in long mode, reserved under PAE (SDM volume 3, 4.4, 4.5)


Levels = tuple[tuple[int, int], ...]  # (shift, index bits) from the top
_LONG_LEVELS: Levels = ((39, 9), (30, 9), (21, 9), (12, 9))
_PAE_LEVELS: Levels = ((30, 2), (21, 9), (12, 9))
_LEVELS: Levels = ((22, 10), (12, 10))
_LONG_SHIFTS = tuple(shift for shift, _ in _LONG_LEVELS)
_LARGE_ADDRESS = ADDRESS & ~0x1FFFFF
# Bits 13 to 20; bit 12 of a 2 MiB page's entry is its PAT (SDM volume 3, table 4-18)
_LARGE_RESERVED = 0x1FFFFF & ADDRESS & ~0x1000


class ErrorCode(enum.IntFlag):
    """Error code of a page fault."""

    PRESENT = 1
    WRITE = 2
    USER = 4
    RESERVED = 8
    FETCH = 16


@attrs.frozen
class Walk:
    """A successful walk.

    Attributes:
        pa: guest-physical address.
        entries: (physical address, value) of each table entry on the way, top level first.
        page_size: bytes of the page: 4 KiB, 2 MiB, 4 MiB or 1 GiB.
        flags: WRITABLE, USER and NO_EXECUTE as combined over the levels, with the low bits of the last entry.
    """

    pa: int
    entries: tuple[tuple[int, int], ...]
    page_size: int
    flags: int


class Access(NamedTuple):
    """What kind of access is made."""

    write: bool = False
    user: bool = False
    fetch: bool = False


class Paging(NamedTuple):
    """The registers that decide how addresses are translated; ``ac`` is RFLAGS.AC, which overrides SMAP."""

    cr0: int
    cr3: int
    cr4: int
    efer: int
    ac: bool = False

    def walk(self, memory: PhysicalMemory, va: int, access: Access) -> Walk:
        """Translate an address.

        Raises:
            PageFault: with the error code that the CPU would give.
            GuestFault: a general protection fault for a non-canonical address.
        """
        if not self.cr0 & CR0_PG:
            return Walk(va, (), 4096, PRESENT | WRITABLE | USER)
        return _Walker(self, memory, va, access).run(self.levels(va))

    def levels(self, va: int) -> Levels:
        """Shift and index width of each level of tables; a general protection fault for a non-canonical address."""
        if self.efer & EFER_LMA:
            if va >> 47 not in CANONICAL_TOPS:
                raise general_protection(f"non-canonical address {va:#x}")
            return _LONG_LEVELS
        return _PAE_LEVELS if self.cr4 & CR4_PAE else _LEVELS

    def address(self, memory: PhysicalMemory, va: int, access: Access) -> int:
        """The physical address that ``walk`` gives, or its fault; quicker where nothing is out of the ordinary.

        That is long mode, pages of 4 KiB or 2 MiB, and every entry allowing the access.
        """
        # With SMEP or SMAP a supervisor's access depends on the page's U bit too, which the short way does not look
        # at.
        plain = self.efer & EFER_LMA and self.cr0 & CR0_PG and not self.cr4 & (CR4_SMEP | CR4_SMAP)
        if plain and va >> 47 in CANONICAL_TOPS:
            needed = PRESENT | (WRITABLE if access.write else 0) | (USER if access.user else 0)
            # XD is reserved without EFER.NXE and forbids a fetch with it: either way such an entry is left to the
            # whole walk.
            refused = _HIGH_RESERVED if self.efer & EFER_NXE and not access.fetch else _HIGH_RESERVED | NO_EXECUTE
            table, size = self.cr3 & ADDRESS, memory.size
            for shift in _LONG_SHIFTS:
                at = table + (va >> shift & 511) * 8
                entry = memory.u64(at) if at < size else 0
                if ~entry & needed or entry & refused:
                    # A fault's error code, and pages of 1 GiB, are the whole walk's: it begins again from the top.
                    break
                if shift != 12 and entry & LARGE:
                    if shift != 21 or entry & _LARGE_RESERVED:
                        break
                    return entry & _LARGE_ADDRESS | va & 0x1FFFFF
                table = entry & ADDRESS
            else:
                return table | va & 0xFFF
        return self.walk(memory, va, access).pa


class _Walker:
    """One walk on its way down."""

    def __init__(self, paging: Paging, memory: PhysicalMemory, va: int, access: Access) -> None:
        self.paging = paging
        self.memory = memory
        self.va = va
        self.access = access
        self.wide = bool(paging.cr4 & CR4_PAE)
        self.long = bool(paging.efer & EFER_LMA)
        self.read: Callable[[int], int] = memory.u64 if self.wide else memory.u32
        self.reserved = _HIGH_RESERVED if self.wide else 0
        if self.wide and not self.long:
            self.reserved |= _HIGH_IGNORED
        if self.wide and not paging.efer & EFER_NXE:
            self.reserved |= NO_EXECUTE

    def run(self, levels: Levels) -> Walk:
        size = 8 if self.wide else 4
        pdpt = self.wide and not self.long
        # A PAE root is a table of four entries, aligned to its 32 bytes (Intel SDM volume 3, 4.4.1).
        table = self.paging.cr3 & (0xFFFFFFE0 if pdpt else ADDRESS)
        entries: list[tuple[int, int]] = []
        allowed = WRITABLE | USER
        no_execute = 0
        for shift, width in levels:
            at = table + (self.va >> shift & (1 << width) - 1) * size
            # A table outside memory reads as zeros, which is "not present".
            entry = self.read(at) if at + size <= self.memory.size else 0
            entries.append((at, entry))
            if not entry & PRESENT:
                raise self.fault(ErrorCode(0), f"not present at level of 2^{shift}")
            top_of_pae = pdpt and shift == 30
            large = shift > 12 and bool(entry & LARGE) and self.may_be_large(shift)
            self.check_reserved(entry, shift, large=large, top_of_pae=top_of_pae)
            # A PDPTE of PAE has no R/W, U/S or XD: it restricts nothing (SDM volume 3, table 4-8).
            if not top_of_pae:
                allowed &= entry
                no_execute |= entry & NO_EXECUTE
            if large or shift == 12:
                break
            table = entry & ADDRESS
        flags = entry & ~(WRITABLE | USER | ADDRESS | NO_EXECUTE) & 0xFFF | allowed | no_execute
        self.check_permission(flags)
        return Walk(self.physical(entry, shift), tuple(entries), 1 << shift, flags)

    def may_be_large(self, shift: int) -> bool:
        if not self.wide:
            return bool(self.paging.cr4 & CR4_PSE)
        return shift == 21 or (self.long and shift == 30)

    def check_reserved(self, entry: int, shift: int, *, large: bool, top_of_pae: bool) -> None:
        reserved = self.reserved
        if top_of_pae:
            # Of PAE's four entries XD is reserved even with NXE (SDM volume 3, 4.4.1); in a PML4E bit 7 is (table
            # 4-15).
            reserved |= NO_EXECUTE
        elif self.long and shift == 39:
            reserved |= LARGE
        elif large and self.wide:
            reserved |= ((1 << shift) - 1) & ADDRESS & ~0x1000  # bit 12 is PAT
        elif large:
            # Of a 4 MiB page's entry bits 13 to 20 are address bits with PSE-36, and bit 21 is reserved (table 4-4).
            reserved |= 1 << 21
        if entry & reserved:
            raise self.fault(ErrorCode.PRESENT | ErrorCode.RESERVED, f"reserved bits {entry & reserved:#x}")

    def check_permission(self, flags: int) -> None:
        access, paging = self.access, self.paging
        user_page = bool(flags & USER)
        # U/S and R/W of all levels together bind level 3; a supervisor's write asks R/W only with CR0.WP (4.6.1).
        if access.user:
            refused = not user_page or (access.write and not flags & WRITABLE)
        else:
            refused = access.write and not flags & WRITABLE and bool(paging.cr0 & CR0_WP)
            if user_page and access.fetch:
                refused |= bool(paging.cr4 & CR4_SMEP)
            elif user_page:
                # RFLAGS.AC lets a supervisor touch user pages in spite of SMAP, which is what stac is for (SDM volume
                # 3, 4.6.1).
                refused |= bool(paging.cr4 & CR4_SMAP) and not paging.ac
        if refused or (access.fetch and flags & NO_EXECUTE):
            raise self.fault(ErrorCode.PRESENT, "not allowed")

    def physical(self, entry: int, shift: int) -> int:
        offset = self.va & (1 << shift) - 1
        if shift == 22:  # PSE-36: bits 13 to 20 are the address's bits 32 to 39 (Intel SDM volume 3, table 4-4)
            return entry & 0xFFC00000 | (entry & 0x1FE000) << 19 | offset
        return entry & ADDRESS & ~((1 << shift) - 1) | offset

    def fault(self, code: ErrorCode, why: str) -> PageFault:
        access, paging = self.access, self.paging
        if access.write:
            code |= ErrorCode.WRITE
        if access.user:
            code |= ErrorCode.USER
        # I is set only where fetches are told apart: NXE with PAE, or SMEP (SDM volume 3, 4.7).
        if access.fetch and ((paging.efer & EFER_NXE and self.wide) or paging.cr4 & CR4_SMEP):
            code |= ErrorCode.FETCH
        return PageFault(f"page fault at {self.va:#x}: {why}", error_code=int(code), address=self.va)

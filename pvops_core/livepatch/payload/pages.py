"""Pages for payloads in a booted kernel: frames that the kernel does not know of, mapped beside its text.

They hang in the very table that maps the kernel's text, in entries that no kernel uses: so they are wherever the text
is. Linux leaves these alone (Documentation/arch/x86/x86_64/mm.rst and arch/x86/include/asm/pgtable_32_areas.h): 64 bits
wide, the end of the 512 MiB for the image; 32 bits wide, the hole of 8 MiB between the direct mapping and vmalloc's.
Kernels that copy that table for every process get the entries where they first miss them.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from pvops_core.errors import MachineError, UsageError
from pvops_core.livepatch.errors import LivepatchError
from pvops_core.livepatch.payload.area import PageRights
from pvops_core.machine import GuestFault
from pvops_core.x86 import ADDRESS, CR4_PAE, EFER_NXE, LARGE, NO_EXECUTE, PAGE, PRESENT

if TYPE_CHECKING:
    from pvops_core.guest.space import KernelSpace
    from pvops_core.machine import Vcpu, Walk
    from pvops_core.machine.cpu.memory.paging import Paging
    from pvops_core.session import Session

SIZE: Final = 4 << 20
"""Bytes of the area: a whole number of entries in tables of any width."""
PAGES: Final = SIZE // PAGE
FRAMES: Final = PAGES + 2
"""Frames that are taken for it: its pages, and the tables that map them."""
_IMAGE: Final = 512 << 20  # KERNEL_IMAGE_SIZE, the smaller one (asm/page_64_types.h): modules begin behind it
_GIB: Final = 1 << 30
_LOW_MEMORY: Final = 872 << 20
"""What a 32-bit kernel maps directly at most, with the usual split (MAXMEM less the hole)."""
_TABLE: Final = 0x63
"""Present, writable, accessed, dirty."""
# Present and accessed, data written and dirty too: so a processor has nothing to set in them.
_RIGHTS: Final = {PageRights.TEXT: 0x21, PageRights.DATA: 0x63 | NO_EXECUTE, PageRights.RODATA: 0x21 | NO_EXECUTE}


def base_of(session: Session) -> int:
    """Guest-virtual address of the area.

    Raises:
        UsageError: the kernel's memory leaves no hole for it.
    """
    image = session.kernel.image
    text = image.symbols.get("_text", image.segments[0].address)
    if image.pointer_size == 8:
        # -_GIB: down to the start of the last GiB but one, where the image's 512 MiB begin.
        return (text & -_GIB) + _IMAGE - SIZE
    segment = next(each for each in image.segments if 0 <= text - each.address < each.memory_size)
    memory = session.platform.guest_memory
    if memory > _LOW_MEMORY:
        raise UsageError(
            f"a 32-bit kernel with {memory >> 20} MiB of memory has no hole for payloads: "
            f"{_LOW_MEMORY >> 20} MiB are the most"
        )
    # Rounded up behind the direct mapping, inside the hole that VMALLOC_OFFSET leaves.
    return segment.address - segment.physical + memory + SIZE - 1 & -SIZE


class KernelPages:
    """The pages of one booted kernel, as live patching wants them.

    Args:
        session: the kernel's.
        space: its address space.
        base: guest-virtual address of the area.
    """

    def __init__(self, session: Session, space: KernelSpace, base: int) -> None:
        self._session = session
        self._machine = session.machine
        self._space = space
        self._base = base
        self._text = session.kernel.image.symbols.get("_text", session.kernel.image.segments[0].address)
        frames = session.platform.spare_frames(FRAMES)
        self._frames, self._tables = frames[:PAGES], frames[PAGES:]

    def machine_address(self, va: int) -> int:
        """Machine address of a page of the area."""
        return self._frames[(va - self._base) // PAGE]

    def prepare(self) -> None:
        """Hang the tables beside the kernel's text.

        Raises:
            LivepatchError: EAGAIN, the kernel has not mapped its text with page tables of its own yet; EBUSY, it has
                something else there.
        """
        try:
            walk = self._space.walk(self._text)
        except GuestFault as fault:
            raise LivepatchError("the kernel has not mapped its text yet", errno=errno.EAGAIN) from fault
        # Any root will do: all share the table that maps the text, or get its entries by fault().
        paging = next(iter(self._space.roots()))
        entries = _entries(paging, walk, self._text, self._base)
        for place, size in entries:
            found = int.from_bytes(self._machine.memory.read(place, size), "little")
            # An entry that is there already and not ours is the kernel's.
            if found & PRESENT and found & ADDRESS not in self._tables:
                raise LivepatchError(
                    f"the kernel uses {self._base:#x} itself, or has not finished its page tables yet",
                    errno=errno.EAGAIN,
                )
        self._hang(entries)

    def _hang(self, entries: list[tuple[int, int]]) -> bool:
        """Enter the tables; whether anything changed."""
        changed = False
        for (place, size), table in zip(entries, self._tables, strict=False):
            found = int.from_bytes(self._machine.memory.read(place, size), "little")
            # Only where it is absent: a table that is hung already must stay.
            if not found & PRESENT:
                self._session.platform.write_entry(place, table | _TABLE, size)
                changed = True
        return changed

    def protect(self, address: int, size: int, access: PageRights | None) -> None:
        """Rewrite the entries of some pages; every vCPU forgets the old ones."""
        paging = next(iter(self._space.roots()))
        width = _width(paging)
        rights = 0 if access is None else _RIGHTS[access]
        # Without NXE the bit is reserved and would fault.
        if not paging.efer & EFER_NXE or width == 4:
            rights &= ~NO_EXECUTE
        first = (address - self._base) // PAGE
        for number in range(first, first + -(-size // PAGE)):
            value = self._frames[number] | rights if access is not None else 0
            self._session.platform.write_entry(self._place(number, width), value, width)
        # Before the pages are used: rights that were cached are the old ones.
        for vcpu in self._machine.vcpus:
            vcpu.flush_tlb()

    def _place(self, number: int, width: int) -> int:
        """Machine address of the entry of a page."""
        table, entry = divmod(number, PAGE // width)
        return self._tables[table] + entry * width

    def fault(self, vcpu: Vcpu, address: int) -> bool:
        """A process whose copy of the kernel's table is older than the area gets its entries."""
        if not self._base <= address < self._base + SIZE:
            return False
        paging, _ = vcpu.virtual.paging()
        try:
            # Supervisor rights: the fault may have come from user mode's tables.
            walk = vcpu.walk(self._text, user=False)
        except GuestFault:
            return False
        # Nothing was missing, so the fault is the kernel's own.
        if not self._hang(_entries(paging, walk, self._text, self._base)):
            return False
        vcpu.flush_tlb()
        return True


def _width(paging: Paging) -> int:
    return 8 if paging.cr4 & CR4_PAE else 4


def _entries(paging: Paging, walk: Walk, text: int, base: int) -> list[tuple[int, int]]:
    """Machine address and width of the entries for the area, in the directory that maps the text."""
    width = _width(paging)
    shift, bits = (21, 9) if width == 8 else (22, 10)
    # One directory has both, or a single table would not do.
    if text >> shift + bits != base >> shift + bits:
        raise MachineError(f"the text at {text:#x} and the payloads' pages at {base:#x} are not in one directory")
    # Text in large pages hangs in the directory itself, small ones one level below.
    place, value = walk.entries[-1] if walk.entries[-1][1] & LARGE and walk.page_size > PAGE else walk.entries[-2]
    assert value & PRESENT, "it is on the way to the text"
    directory, mask = place & -PAGE, (1 << bits) - 1
    return [(directory + (va >> shift & mask) * width, width) for va in range(base, base + SIZE, 1 << shift)]

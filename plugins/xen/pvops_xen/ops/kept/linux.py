"""What a Linux keeps for its Xen code, in place of what the ops remember for a guest that has no place for it.

Source: arch/x86/xen (enlighten_pv.c, mmu_pv.c, multicalls.c, p2m.c) and asm/xen/page.h of 6.1, 6.12 and 7.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor.abi import PAGE_SHIFT
from pvops_xen.hypervisor.memory import entries as pte
from pvops_xen.ops.frames import INVALID, FrameNumbers
from pvops_xen.ops.kept.lasting import KernelWords
from pvops_xen.ops.kept.linuxbatch import LinuxBatch

if TYPE_CHECKING:
    from pvops_core.backends import Environment
    from pvops_core.machine import Machine, Vcpu
    from pvops_xen.platform import XenPlatform

_NO_ENTRY: Final = (1 << 64) - 1
_IDENTITY: Final = 1 << 62  # IDENTITY_FRAME_BIT and FOREIGN_FRAME_BIT of an entry of the p2m (asm/xen/page.h)
_FOREIGN: Final = 1 << 63
_START_KERNEL_MAP: Final = 0xFFFF_FFFF_8000_0000
_PAGE_KERNEL: Final = pte.P | pte.RW | pte.A | pte.D | 1 << 8 | 1 << 63  # global, not executable
_TRAP: Final = 24  # sizeof(struct trap_array_entry): orig, xen, ist_okay (arch/x86/xen/enlighten_pv.c)
_EXCEPTIONS: Final = 32  # NUM_EXCEPTION_VECTORS
_EARLY, _EARLY_OF_XEN = "early_idt_handler_array", "xen_early_idt_handler_array"
"""Of a stub for each exception, which with IBT's endbr is longer (asm/segment.h)."""
_IN_INTERRUPT: Final = 0x00FF_FF00  # in_interrupt(): SOFTIRQ_MASK, HARDIRQ_MASK, NMI_MASK (linux/preempt.h)


class Linux:
    """One kernel's.

    Args:
        env: the core's environment.
        platform: the hypervisor.
    """

    def __init__(self, env: Environment, platform: XenPlatform) -> None:
        self.names = env.guest
        self.memory = KernelWords(env.machine, env.guest)
        self.machine: Machine = env.machine
        self._word = env.machine.memory.u64
        self._vcpus: dict[int, int] = {}
        self.frames = LinuxFrames(platform, self)
        self.calls = [LinuxBatch(platform, cpu, self) for cpu in env.machine.vcpus]
        self.late = True  # its own functions are there for what comes before
        self.cr3 = PerCpuWords(self, "xen_cr3")
        self.cr0 = PerCpuWords(self, "xen_cr0_value", unknown=0)
        self.pinned = PinnedPages(self)
        self.protected = Unremembered()
        self.user_roots = UserRoots(self)
        self.gdt = Tables(self)
        self.idt = InterruptTables(self)
        self.tls = ShadowTls(self)
        self.traps = TrapArray(self)

    def of_cpu(self, symbol: str, cpu: int) -> int:
        """Guest-virtual address of a processor's own of a variable."""
        return self.names.per_cpu(symbol, self.machine.vcpus[cpu])

    def variable(self, symbol: str) -> int:
        """The word that a variable holds."""
        return self.memory.u64(self.names.address(symbol))

    def u32(self, symbol: str) -> int:
        """Half of it."""
        return self.memory.u32(self.names.address(symbol))

    def u32_of(self, symbol: str, cpu: int) -> int:
        """The first half word of a processor's own of a variable."""
        return self.memory.u32(self.of_cpu(symbol, cpu))

    def vcpu_info(self, cpu: Vcpu) -> int:
        """Machine address of what the kernel's ``xen_vcpu`` points to: early in boot that is none of Xen's."""
        place = self.names.per_cpu("xen_vcpu", cpu)
        # Per-CPU areas move, the variable does not: what it points to is read each time.
        variable = self._vcpus.get(place)
        if variable is None:
            variable = self._vcpus[place] = self.memory.at(place)
        return self.memory.at(self._word(variable))

    @cached_property
    def no_events(self) -> int:
        """Machine address of ``xen_dummy_shared_info``'s vcpu_info: until Xen's is mapped, no event can come."""
        return self.memory.at(self.names.address("xen_dummy_shared_info"))

    @cached_property
    def _direct_map(self) -> int:
        return self.variable("page_offset_base")

    def pa(self, va: int) -> int:
        """``__pa``."""
        # The kernel image is mapped at its own base, and below it the direct map.
        if va >= _START_KERNEL_MAP:
            return va - _START_KERNEL_MAP + self.variable("phys_base")
        return va - self._direct_map

    def va(self, pfn: int) -> int:
        """``__va``."""
        return self._direct_map + (pfn << PAGE_SHIFT)

    def protection(self, *, writable: bool) -> int:
        """PAGE_KERNEL or PAGE_KERNEL_RO, of which processors and Xen leave a kernel what its masks say."""
        if writable:
            flags = _PAGE_KERNEL
        else:
            # Since a clean page that is not writable means a shadow stack's (6.6), it is dirty no more.
            flags = _PAGE_KERNEL & ~(pte.RW | pte.D if self.names.knows("user_shstk") else pte.RW)
        return flags & self.variable("__supported_pte_mask") & self.variable("__default_kernel_pte_mask")

    def is_used(self, mm: int, root: int) -> bool:
        """Whether some processor is still in an address space, or has last told Xen of it."""
        for cpu in self.machine.vcpus:
            # A processor's own loaded mm is the last that it was switched to.
            place = self.names.per_cpu("cpu_tlbstate", cpu) + self.names.member("tlb_state", "loaded_mm")
            current = self.memory.u64(self.names.per_cpu("xen_current_cr3", cpu))
            # Xen is told of the root by then, and may still have it.
            if self.memory.u64(place) == mm or current == root << PAGE_SHIFT:
                return True
        return False

    def page(self, pfn: int) -> int:
        """Address of a frame's struct page."""
        return self._pages + pfn * self._page_size

    @cached_property
    def _pages(self) -> int:
        return self.variable("vmemmap_base")

    @cached_property
    def _page_size(self) -> int:
        return self.names.size("struct page")

    @cached_property
    def pages_are_ready(self) -> int:
        """Address of the static key of that name."""
        return self.names.address("xen_struct_pages_ready")

    def has_pages(self) -> bool:
        """Whether there are struct pages yet; until then every table counts as pinned."""
        return bool(self.memory.u32(self.pages_are_ready))

    def in_interrupt(self, cpu: Vcpu) -> bool:
        """``in_interrupt()``: in a handler of one, hardware or software; then no lazy mode holds."""
        return bool(self.memory.u32(self._preempt_count(cpu)) & _IN_INTERRUPT)

    def _preempt_count(self, cpu: Vcpu) -> int:
        if "__preempt_count" in self.names:
            # 6.5 moved it into ``pcpu_hot`` (asm/current.h).
            return self.names.per_cpu("__preempt_count", cpu)
        return self.names.per_cpu("pcpu_hot", cpu) + self.names.member("pcpu_hot", "preempt_count")


class LinuxFrames(FrameNumbers):
    """Translation by the kernel's own list of frames, and by Xen's table for the way back."""

    def __init__(self, platform: XenPlatform, linux: Linux) -> None:
        super().__init__(platform)
        self._linux = linux
        self._memory = linux.memory
        self._list, self._size, self._most = (
            linux.names.address(name) for name in ("xen_p2m_addr", "xen_p2m_size", "xen_max_p2m_pfn")
        )
        self._machine_frames = linux.names.address("machine_to_phys_nr")
        self._word = linux.machine.memory.u64

    @cached_property
    def _places(self) -> tuple[int, int]:
        """Machine addresses of the list's size and beginning: an op of a page table looks at them again and again."""
        return self._memory.at(self._size), self._memory.at(self._list)

    @cached_property
    def _count(self) -> int:
        """Machine address of how many frames Xen's table has."""
        return self._memory.at(self._machine_frames)

    def _entry(self, pfn: int) -> int:
        """``__pfn_to_mfn``: with the bits for foreign frames and for those that are what they seem."""
        memory, (size, start) = self._memory, self._places
        if not 0 <= pfn < self._word(size):
            # Beyond the list a frame is what it seems; within a hole it has none (``__pfn_to_mfn``).
            return _NO_ENTRY if 0 <= pfn < memory.u64(self._most) else pfn | _IDENTITY
        place = self._word(start) + 8 * pfn
        entry = memory.u64(place)
        if entry == _NO_ENTRY:
            # Xen may have got the guest a page here since it was last looked at.
            memory.forget(place)  # a page of frames that are not there may since have got one of its own
            entry = memory.u64(place)
            if entry == _NO_ENTRY and self._is_identity(place):
                return pfn | _IDENTITY
        return entry

    def _is_identity(self, place: int) -> bool:
        """``get_phys_to_machine``: the page of the list is the one that all such frames share."""
        shared = self._linux.variable("p2m_identity")
        return bool(shared) and self._linux.names.place(place) >> PAGE_SHIFT == self._memory.at(shared) >> PAGE_SHIFT

    def mfn(self, pfn: int) -> int:
        """``pfn_to_mfn``."""
        entry = self._entry(pfn)
        return INVALID if entry == _NO_ENTRY else entry & ~(_IDENTITY | _FOREIGN)

    def pfn(self, mfn: int) -> int:
        """``mfn_to_pfn``."""
        pfn = INVALID
        if mfn < len(self._hv.frames) and mfn < self._word(self._count):
            pfn = self._hv.pfn_of(mfn)
        if pfn != INVALID and self._entry(pfn) == mfn:
            return pfn
        # An identity frame (a foreign one, or MMIO) is its own number.
        return mfn if self._entry(mfn) == mfn | _IDENTITY else INVALID


class PerCpuWords:
    """A per-CPU variable of a word, by the vCPU's number."""

    def __init__(self, linux: Linux, symbol: str, unknown: int | None = None) -> None:
        self._linux = linux
        self._symbol = symbol
        self._unknown = unknown

    def get(self, cpu: int) -> int | None:
        """What it holds, unless that says that nothing is known yet."""
        value = self._linux.memory.u64(self._linux.of_cpu(self._symbol, cpu))
        return None if value == self._unknown else value

    def __setitem__(self, cpu: int, value: int) -> None:
        self._linux.memory.set_u64(self._linux.of_cpu(self._symbol, cpu), value)


class PinnedPages:
    """Frames whose struct page has PG_pinned, which is PG_owner_priv_1."""

    def __init__(self, linux: Linux) -> None:
        self._linux = linux

    @cached_property
    def _flag(self) -> int:
        # PG_pinned is PG_owner_priv_1 by another name (include/linux/page-flags.h).
        return 1 << self._linux.names.enumerator("pageflags", "PG_owner_priv_1")

    @cached_property
    def _flags(self) -> int:
        return self._linux.names.member("page", "flags")

    def __contains__(self, pfn: object) -> bool:
        linux = self._linux
        assert isinstance(pfn, int)
        return not linux.has_pages() or bool(linux.memory.u64(linux.page(pfn) + self._flags) & self._flag)

    def _set(self, pfn: int, *, pinned: bool) -> None:
        linux = self._linux
        # Before there are struct pages, nobody's frame is marked.
        if linux.has_pages():
            place = linux.page(pfn) + self._flags
            flags = linux.memory.u64(place)
            linux.memory.set_u64(place, flags | self._flag if pinned else flags & ~self._flag)

    def add(self, pfn: int) -> None:
        """SetPagePinned."""
        self._set(pfn, pinned=True)

    def discard(self, pfn: int) -> None:
        """ClearPagePinned."""
        self._set(pfn, pinned=False)

    def __iter__(self) -> Iterator[int]:
        return iter(())  # nobody goes through all pages


class Unremembered:
    """Which frames are mapped read-only, of which a Linux keeps nothing but its page tables."""

    def add(self, pfn: int) -> None:
        """Not kept."""

    def discard(self, pfn: int) -> None:
        """Not kept."""

    def __contains__(self, pfn: object) -> bool:
        return False

    def __iter__(self) -> Iterator[int]:
        return iter(())


class UserRoots:
    """The user root of a kernel root: ``private`` of its struct page."""

    def __init__(self, linux: Linux) -> None:
        self._linux = linux

    @cached_property
    def _private(self) -> int:
        return self._linux.names.member("page", "private")

    def get(self, pfn: int, default: int = 0) -> int:
        """Virtual address of it, or 0."""
        linux = self._linux
        return linux.memory.u64(linux.page(pfn) + self._private) if linux.has_pages() else default

    def __setitem__(self, pfn: int, va: int) -> None:
        self._linux.memory.set_u64(self._linux.page(pfn) + self._private, va)


class Tables:
    """Where a processor's GDT is."""

    def __init__(self, linux: Linux) -> None:
        self._linux = linux

    def get(self, cpu: int) -> int:
        """``get_cpu_gdt_rw``."""
        return self._linux.of_cpu("gdt_page", cpu)

    def __setitem__(self, cpu: int, base: int) -> None:
        raise AssertionError(f"processor {cpu} has its table where the kernel put it, not at {base:#x}")


class InterruptTables:
    """A processor's ``idt_desc``, a struct desc_ptr: address and bytes."""

    def __init__(self, linux: Linux) -> None:
        self._linux = linux

    def get(self, cpu: int, default: tuple[int, int] = (0, 0)) -> tuple[int, int]:
        """The table that was loaded last."""
        data = self._linux.memory.read(self._linux.of_cpu("idt_desc", cpu), 10)
        size, address = int.from_bytes(data[:2], "little"), int.from_bytes(data[2:], "little")
        # An address of 0 is a table that was never loaded.
        return (address, size + 1) if address else default

    def __setitem__(self, cpu: int, table: tuple[int, int]) -> None:
        address, size = table
        data = (size - 1).to_bytes(2, "little") + address.to_bytes(8, "little")
        self._linux.memory.write(self._linux.of_cpu("idt_desc", cpu), data)


class ShadowTls:
    """``shadow_tls_desc``: the TLS descriptors that Xen was told, by processor and number."""

    def __init__(self, linux: Linux) -> None:
        self._linux = linux

    def _place(self, which: tuple[int, int]) -> int:
        cpu, index = which
        return self._linux.of_cpu("shadow_tls_desc", cpu) + 8 * index

    def get(self, which: tuple[int, int]) -> int:
        """A descriptor."""
        return self._linux.memory.u64(self._place(which))

    def __setitem__(self, which: tuple[int, int], descriptor: int) -> None:
        self._linux.memory.set_u64(self._place(which), descriptor)


class TrapArray:
    """``get_trap_addr``: which entry point Xen is told in place of the one in a gate."""

    def __init__(self, linux: Linux) -> None:
        self._linux = linux

    @cached_property
    def _entries(self) -> dict[int, tuple[int, bool]]:
        """``trap_array``: by the gate's own entry that for Xen, and whether the gate may have a stack of its own."""
        names, memory, found = self._linux.names, self._linux.memory, {}
        for place in range(names.address("trap_array"), names.end("trap_array") - _TRAP + 1, _TRAP):
            own, entry, ist_okay = (memory.u64(place + 8 * each) for each in range(3))
            # The array ends where the next entry is no address: it has no count of its own.
            if min(own, entry) < _START_KERNEL_MAP:
                break
            found[own] = entry, bool(ist_okay & 0xFF)
        return found

    def entry(self, address: int, *, ist: bool) -> int:
        """Address for Xen; 0 for what a Xen guest has no such gate for."""
        names = self._linux.names
        if address in self._entries:
            entry, ist_okay = self._entries[address]
            # A gate with a stack of its own (IST) has no Xen form unless the entry says so.
            return 0 if ist and not ist_okay else entry
        # Early entry points have no entry in the array, and are numbered by place.
        number, rest = divmod(address - names.address(_EARLY), self._stub(_EARLY))
        if 0 <= number < _EXCEPTIONS and not rest:
            return names.address(_EARLY_OF_XEN) + number * self._stub(_EARLY_OF_XEN)
        return names.address("xen_asm_exc_xen_unknown_trap")

    def _stub(self, array: str) -> int:
        return (self._linux.names.end(array) - self._linux.names.address(array)) // _EXCEPTIONS

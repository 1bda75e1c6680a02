"""pv_init_ops, x86_init: what happens once, while the kernel boots (arch/x86/xen/enlighten_pv.c, setup.c, mmu_pv.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.errors import PatchError
from pvops_core.hookspecs import hookimpl
from pvops_core.machine.run.eventkinds import event_kind
from pvops_core.patching.patchdefault import patch_default
from pvops_xen.hypervisor.abi import (
    CALLBACKF_MASK_EVENTS,
    PAGE_SHIFT,
    PAGE_SIZE,
    Callback,
    Hypercall,
    MemoryOp,
    PhysdevOp,
    VcpuOp,
    VmAssist,
)
from pvops_xen.hypervisor.processor.callbacks import REGISTERED
from pvops_xen.ops.base import XenGroup
from pvops_xen.public import MEMORY, PHYSDEV

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.patching.context import PatchContext

_RESERVE: Final = event_kind(
    "memblock-reserve",
    "The hook reserved memory in place of the kernel.",
    start="int: physical address",
    end="int: behind it",
)

_KERNEL_CS32: Final = 0x61  # __KERNEL_CS at level 1, where Xen runs a 32-bit kernel
_MAP: Final = MEMORY["xen_memory_map"].whole("nr_entries", "buffer")
_IOPL: Final = PHYSDEV["physdev_set_iopl"].whole("iopl")
_DIRECT: Final = frozenset({"irq_disable", "irq_enable", "save_fl", "restore_fl"})


class BootOps(XenGroup):
    """Boot-time hooks and the values that are no functions."""

    @hookimpl
    def kernel_rpl(self) -> int:
        """A 32-bit kernel runs in ring 1."""
        return 1

    @hookimpl
    def shared_kernel_pmd(self) -> int:
        """Xen keeps entries of its own in the kernel's directory: one a space."""
        return 0

    @hookimpl
    def paravirt_enabled(self) -> int:
        """Not bare hardware."""
        return 1

    @hookimpl
    def name(self) -> str:
        """As the banner names it."""
        return "Xen"

    @hookimpl
    def banner(self, cpu: Vcpu) -> None:
        """One line to Xen's console."""
        text = b"Booting paravirtualized kernel on Xen\n"
        address = self.argument(cpu, text)
        self.platform.hypercall(cpu, Hypercall.CONSOLE_IO, 0, len(text), address)

    @hookimpl
    def memory_setup(self, cpu: Vcpu) -> int:
        """Ask Xen for a memory map; it has none, so nr_pages of start_info stands. No name is given for the map."""
        address = self.below_stack(cpu, 512)
        cpu.write_virtual(address, _MAP.at(self.bits).form.pack(8, address + 32))
        self.platform.hypercall(cpu, Hypercall.MEMORY_OP, MemoryOp.MEMORY_MAP, address)
        return 0

    # --- callbacks -------------------------------------------------------------------------------------------------

    @hookimpl
    def arch_setup(self, cpu: Vcpu) -> None:
        """Ask for Xen's help, and say where it shall enter the kernel."""
        assists = [VmAssist.WRITABLE_PAGETABLES, VmAssist.PAE_EXTENDED_CR3]
        # 4 GB segments are for 32-bit guests, whose libraries use negative offsets through GS.
        if self.bits == 32:
            assists.insert(0, VmAssist.FOUR_GB_SEGMENTS)
        for assist in assists:
            self.platform.hypercall(cpu, Hypercall.VM_ASSIST, 0, assist)
        for kind, symbol, needed in (
            (Callback.EVENT, "xen_hypervisor_callback", True),
            (Callback.FAILSAFE, "xen_failsafe_callback", True),
            (Callback.SYSENTER, "xen_sysenter_target", False),
            (Callback.SYSCALL, "xen_syscall_target", False),
            (Callback.SYSCALL32, "xen_syscall32_target", False),
        ):
            address = self.symbol(symbol) if needed else self.env.symbols.get(symbol)
            # BUG_ON(HYPERVISOR_callback_op(...)): only the first two are needed, the others just drop features.
            if address is not None and self._register(cpu, kind, address) and needed:
                self.bug(f"the {kind.name.lower()} callback was refused")
        # IOPL 1 for the kernel's own ring, so that its port accesses are allowed (``xen_start_kernel``).
        level = self.argument(cpu, _IOPL.at(self.bits).form.pack(1))
        self.platform.hypercall(cpu, Hypercall.PHYSDEV_OP, PhysdevOp.SET_IOPL, level)

    def _register(self, cpu: Vcpu, kind: Callback, address: int) -> int:
        where = (address,) if self.bits == 64 else (_KERNEL_CS32, address)
        data = REGISTERED[self.bits].at(self.bits).form.pack(kind, CALLBACKF_MASK_EVENTS, *where)
        place = self.argument(cpu, data)
        return self.platform.hypercall(cpu, Hypercall.CALLBACK_OP, 0, place)

    # --- page tables -----------------------------------------------------------------------------------------------

    @hookimpl
    def pagetable_setup_start(self, cpu: Vcpu) -> None:
        """The builder's tables stay read-only in whatever the kernel maps from now on."""
        del cpu
        tables = self.platform.initial_tables
        # Without builder tables (a kernel's own) there is nothing to protect.
        if tables is not None:
            for pfn in range(tables.first_pfn, tables.first_pfn + tables.count):
                self.kept.protected.add(pfn)

    @hookimpl
    def pagetable_reserve(self, cpu: Vcpu, start: int, end: int) -> None:
        """Reserve the used range, and set the rest of the buffer read-write: it goes back to the allocator."""
        self.env.machine.log.record(_RESERVE, cpu.index, start=start, end=end)
        # The rest of the buffer goes back to the allocator as ordinary memory (``xen_mapping_pagetable_reserve``).
        for pfn in range((end + PAGE_SIZE - 1) >> PAGE_SHIFT, self.tables.early_buffer(cpu).stop):
            self.tables.protect(cpu, pfn, writable=True)

    @hookimpl
    def pagetable_setup_done(self, cpu: Vcpu, pgd_base: int) -> None:
        """``xen_mark_init_mm_pinned``, ``xen_post_allocator_init``: the kernel's tables are in use from now on."""
        root = self.tables.machine_of(cpu, pgd_base) >> PAGE_SHIFT
        # From now on every table of the kernel counts as pinned (``xen_mark_init_mm_pinned``).
        self.kept.pinned.add(self.frames.pfn(root))
        top = 4 if self.bits == 64 else 3
        for pfn, _level in self.tables.below(root, top, 512):
            self.kept.pinned.add(pfn)
        for pfn in self.kept.pinned:
            self.kept.protected.add(pfn)
        self.kept.late = True

    @hookimpl
    def post_allocator_init(self, cpu: Vcpu) -> None:
        """2.6: nothing is left to be done; pagetable_setup_done has the early code behind it."""
        del cpu

    @hookimpl
    def time_init(self, cpu: Vcpu) -> None:
        """The periodic timer is stopped: the one-shot timer serves."""
        # Xen ticks a PV guest at 100 Hz until it says otherwise.
        self.platform.hypercall(cpu, Hypercall.VCPU_OP, VcpuOp.STOP_PERIODIC_TIMER, cpu.index, 0)

    # --- patching --------------------------------------------------------------------------------------------------

    @hookimpl
    def patch(self, ctx: PatchContext, type: int, clobbers: int, insnbuf: bytearray, addr: int, len: int) -> int:
        """``xen_patch`` (32-bit): direct forms of interrupt ops if vcpu_info is the guest's own and they fit."""
        op = ctx.layout.by_type(type).op.name
        patchlet = ctx.patchlets.get(op) if op in _DIRECT and ctx.has_patch_slot else None
        # xen_patch inlines these only where vcpu_info is at its fixed place, and where they fit.
        if patchlet is not None and patchlet.size <= len and self._has_vcpu_info_placement():
            try:
                insnbuf[: patchlet.size] = patchlet.assemble(addr, ctx.symbols)
            except PatchError:  # no check_events in this guest: the call stays
                pass
            else:
                return patchlet.size
        return patch_default(ctx, type, clobbers, insnbuf, addr, len)

    def _has_vcpu_info_placement(self) -> bool:
        """The only vCPU's vcpu_info is at the symbol that the direct forms name."""
        hv = self.platform.hv
        state = hv.domain.vcpus[0]
        # The only vCPU's area must be the one whose address the code has.
        symbol = self.env.symbols.get("xen_vcpu_info")
        if symbol is None or not state.info_registered or len(hv.domain.vcpus) != 1:
            return False
        return self.platform.machine_address(symbol - self.symbol("kernel_base")) == state.info

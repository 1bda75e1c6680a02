"""What one privileged or sensitive instruction does here and now, for Python code that acts for the guest.

Each method checks the privilege level as the CPU would. Where it refuses, the platform is asked
(``TrapHandler.privileged``), as it would be by the trap. Source: Intel SDM volume 2, the pages of the instructions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.machine.cpu import faults
from pvops_core.machine.cpu.faults import GuestFault, general_protection, undefined_instruction
from pvops_core.machine.cpu.instructions.control import check_cr0, check_cr3, check_cr4
from pvops_core.machine.cpu.model.msrs import read_msr, write_msr
from pvops_core.machine.cpu.segmentation.descriptors import descriptor_address, selector_fault
from pvops_core.machine.cpu.segmentation.segments import Descriptor
from pvops_core.x86 import CR0_TS, CR4_TSD, FLAG_IF, FLAG_IOPL, FLAG_RF, FLAG_VM, MSR_KERNEL_GS_BASE

if TYPE_CHECKING:
    from pvops_core.machine.cpu.vcpu import Vcpu

_POPF = 0x244DD5  # CF PF AF ZF SF TF DF OF NT AC ID
_BUSY = 1 << 9  # of a TSS descriptor's type (Intel SDM volume 3, 7.2.2)
CR4_FLUSHES = 1 << 4 | 1 << 5 | 1 << 7
"""PSE, PAE and PGE: a change of these drops every cached translation (Intel SDM volume 3, 4.10.4.1)."""


class Instructions:
    """The instructions of one vCPU. All raise GuestFault where the guest would fault; none moves RIP."""

    def __init__(self, vcpu: Vcpu) -> None:
        self._vcpu = vcpu
        self._level = vcpu.batch("cs", "rflags")

    def _ask(self, name: str, *operands: int) -> int:
        return self._vcpu.machine.platform.privileged(self._vcpu, name, *operands) or 0

    @property
    def _refused(self) -> bool:
        return self._vcpu.cpl != 0

    def _io_sensitive(self) -> bool:
        """CPL > IOPL."""
        cs, flags = self._level.read()
        # The level is CS's RPL; IOPL is bits 12 and 13 of the flags (SDM volume 1, 3.4.3)
        return cs & 3 > flags >> 12 & 3

    def cli(self) -> None:
        """Clear IF; needs CPL <= IOPL."""
        cs, flags = self._level.read()
        if cs & 3 > flags >> 12 & 3:
            self._ask("cli")
        else:
            self._vcpu.rflags = flags & ~FLAG_IF

    def sti(self) -> None:
        """Set IF; needs CPL <= IOPL."""
        cs, flags = self._level.read()
        if cs & 3 > flags >> 12 & 3:
            self._ask("sti")
        else:
            self._vcpu.rflags = flags | FLAG_IF

    def pushf(self) -> int:
        """The flags as pushf pushes them (VM and RF clear); no level is needed. The stack is not touched."""
        return self._vcpu.rflags & ~(FLAG_VM | FLAG_RF)

    def popf(self, v: int) -> None:
        """Set the flags as popf does: IF silently only at CPL <= IOPL, IOPL only at CPL 0."""
        vcpu = self._vcpu
        old, cpl = vcpu.rflags, vcpu.cpl
        mask = _POPF
        if cpl <= old >> 12 & 3:
            mask |= FLAG_IF
        if cpl == 0:
            mask |= FLAG_IOPL
        # RF is cleared, whatever the image says (SDM volume 2, POPF).
        vcpu.rflags = old & ~mask & ~FLAG_RF | v & mask

    def hlt(self) -> None:
        """Wait for an interrupt."""
        if self._refused:
            self._ask("hlt")
        else:
            self._vcpu.machine.platform.halted(self._vcpu)

    def clts(self) -> None:
        """Clear CR0.TS."""
        if self._refused:
            self._ask("clts")
        else:
            self._vcpu.cr0 &= ~CR0_TS

    def wbinvd(self) -> None:
        """Write back caches: nothing to do, but privileged."""
        if self._refused:
            self._ask("wbinvd")

    def invlpg(self, va: int) -> None:
        """Drop the cached translation of an address."""
        if self._refused:
            self._ask("invlpg", va)
        else:
            self._vcpu.flush_tlb(va)

    def mov_from_cr(self, n: int) -> int:
        """Control register 0, 2, 3, 4 or (64-bit) 8."""
        if n not in {0, 2, 3, 4} and not (n == 8 and self._vcpu.machine.kind.bits == 64):
            raise undefined_instruction(f"no cr{n}")
        if self._refused:
            return self._ask("mov_from_cr", n)
        return self._vcpu.get(f"cr{n}")

    def mov_to_cr(self, n: int, v: int) -> None:
        """Load a control register: reserved bits are #GP(0); the TLB is flushed as the CPU does it."""
        vcpu = self._vcpu
        if n not in {0, 2, 3, 4} and not (n == 8 and vcpu.machine.kind.bits == 64):
            # Which register there is comes before the level: #UD has priority over #GP (SDM volume 3, table 6-2).
            raise undefined_instruction(f"no cr{n}")
        if self._refused:
            self._ask("mov_to_cr", n, v)
            return
        if n == 0:
            check_cr0(vcpu, v)
        elif n == 3:
            check_cr3(vcpu, v)
            vcpu.machine.counts["tlb_flushes"] += 1
            vcpu.machine.flushed(vcpu.index, "space")
        elif n == 4:
            check_cr4(vcpu, v)
            if (v ^ vcpu.cr4) & CR4_FLUSHES:
                vcpu.machine.flushed(vcpu.index, "all")
        elif n == 8 and v > 15:
            raise general_protection("cr8 has four bits")
        # Set before the debug registers are looked at: CR4.DE decides whether a port breakpoint is one.
        vcpu.set(f"cr{n}", v)
        if n == 4:
            vcpu.debug.refresh()

    def mov_from_dr(self, n: int) -> int:
        """Debug register 0..7 (4 and 5 are 6 and 7: SDM volume 3, 17.2.2); #DB with DR7.GD."""
        n = self._debug_register(n)
        if self._refused:
            return self._ask("mov_from_dr", n)
        self._vcpu.debug.check_access()
        return self._vcpu.debug.read(n)

    def mov_to_dr(self, n: int, v: int) -> None:
        """Load a debug register; the high half of DR6 and DR7 must be zero; #DB with DR7.GD."""
        n = self._debug_register(n)
        if self._refused:
            self._ask("mov_to_dr", n, v)
            return
        self._vcpu.debug.check_access()
        if n >= 6 and v >> 32:
            raise general_protection(f"dr{n} has 32 bits")
        self._vcpu.debug.write(n, v)

    def _debug_register(self, n: int) -> int:
        if not 0 <= n <= 7:
            raise undefined_instruction(f"no dr{n}")
        if n in {4, 5}:
            if self._vcpu.cr4 & 1 << 3:  # CR4.DE
                raise undefined_instruction(f"dr{n} with CR4.DE")
            return n + 2
        return n

    def rdmsr(self, i: int) -> int:
        """A model-specific register, 64 bits; #GP(0) for one that the machine does not have."""
        if self._refused:
            return self._ask("rdmsr", i)
        served = self._vcpu.machine.served_msrs.get(i)
        return read_msr(self._vcpu, i) if served is None else served.read(self._vcpu) & 0xFFFFFFFFFFFFFFFF

    def wrmsr(self, i: int, v: int) -> None:
        """Write a model-specific register."""
        if self._refused:
            self._ask("wrmsr", i, v)
        elif served := self._vcpu.machine.served_msrs.get(i):
            served.write(self._vcpu, v & 0xFFFFFFFFFFFFFFFF)
        else:
            write_msr(self._vcpu, i, v)

    def rdtsc(self) -> int:
        """The time-stamp counter: virtual nanoseconds; needs CPL 0 when CR4.TSD is set."""
        vcpu = self._vcpu
        # TSD makes rdtsc privileged, and nothing else does (SDM volume 2, RDTSC).
        if vcpu.cr4 & CR4_TSD and self._refused:
            return self._ask("rdtsc")
        return vcpu.machine.clock.ns + vcpu.tsc_offset & 0xFFFFFFFFFFFFFFFF

    def rdpmc(self, i: int) -> int:
        """A performance counter: the machine has none, so #GP(0) at level 0."""
        if self._refused:
            return self._ask("rdpmc", i)
        raise general_protection(f"no performance counter {i}")

    def cpuid(self, leaf: int, sub: int = 0) -> tuple[int, int, int, int]:
        """EAX, EBX, ECX, EDX as the platform has them."""
        return self._vcpu.machine.platform.cpuid(self._vcpu, leaf & 0xFFFFFFFF, sub & 0xFFFFFFFF)

    def lgdt(self, base: int, limit: int) -> None:
        """Load GDTR: linear base and u16 limit."""
        if self._refused:
            self._ask("lgdt", base, limit)
        else:
            self._vcpu.set_table("gdtr", base, limit & 0xFFFF)

    def lidt(self, base: int, limit: int) -> None:
        """Load IDTR: linear base and u16 limit."""
        if self._refused:
            self._ask("lidt", base, limit)
        else:
            self._vcpu.set_table("idtr", base, limit & 0xFFFF)

    def sgdt(self) -> tuple[int, int]:
        """Base and limit of the GDT; no level is needed."""
        table = self._vcpu.table("gdtr")
        return int(table.base), int(table.limit)

    def sidt(self) -> tuple[int, int]:
        """Base and limit of the IDT; no level is needed."""
        table = self._vcpu.table("idtr")
        return int(table.base), int(table.limit)

    def lldt(self, sel: int) -> None:
        """Load LDTR from the GDT; a null selector empties it."""
        if self._refused:
            self._ask("lldt", sel)
        # A null selector is loaded without looking: LDTR is marked unusable and faults when it is used (volume 2,
        # LLDT).
        elif sel & 0xFFFC:
            self._load_system("ldtr", sel, {2})  # the type of an LDT (SDM volume 3, table 3-2)
        else:
            self._vcpu.set_table("ldtr", 0, 0, sel & 0xFFFF)

    def ltr(self, sel: int) -> None:
        """Load TR from the GDT and mark the task state segment busy."""
        if self._refused:
            self._ask("ltr", sel)
            return
        # An available TSS of 16 bits is 1, of 32 or 64 bits 9; in long mode there is none of 16 (SDM volume 3, table
        # 3-2).
        self._load_system("tr", sel, {9} if self._vcpu.long_mode else {1, 9})

    def _load_system(self, name: str, sel: int, types: set[int]) -> None:
        vcpu = self._vcpu
        if sel & 4:  # TI: an LDT or a TSS is described in the GDT alone (SDM volume 2, LLDT, LTR)
            raise selector_fault(faults.GP, sel, "not in the GDT")
        address = descriptor_address(vcpu, sel)
        size = 16 if vcpu.long_mode else 8
        raw = vcpu.virtual.number(address, size, system=True)
        descriptor = Descriptor.of(raw)
        if not descriptor.system or descriptor.type not in types:
            raise selector_fault(faults.GP, sel, f"of the wrong type for {name}")
        if not descriptor.present:
            raise selector_fault(faults.NP, sel, "not present")
        high = descriptor.high
        if name == "tr":
            high |= _BUSY
            # Busy goes into the guest's own table, since a second LTR of the same segment must be refused (SDM volume
            # 2, LTR).
            vcpu.virtual.set_number(address + 4, 4, high, system=True)
        vcpu.set_table(name, descriptor.base | raw >> 64 << 32 & 0xFFFFFFFF00000000, descriptor.limit, sel, high)

    def str(self) -> int:
        """Selector of the task register; no level is needed."""
        return int(self._vcpu.table("tr").selector)

    def in_(self, port: int, size: int) -> int:
        """Read 1, 2 or 4 bytes from a port, if level or the task's I/O bitmap allows."""
        if not self.io_allowed(port, size):
            return self._ask("in_", port, size)
        return self._vcpu.machine.platform.io_in(self._vcpu, port, size) & (1 << size * 8) - 1

    def out(self, port: int, value: int, size: int) -> None:
        """Write 1, 2 or 4 bytes to a port, if level or the task's I/O bitmap allows."""
        if self.io_allowed(port, size):
            self._vcpu.machine.platform.io_out(self._vcpu, port, size, value & (1 << size * 8) - 1)
        else:
            self._ask("out", port, value, size)

    def io_allowed(self, port: int, size: int) -> bool:
        """CPL <= IOPL, or all bits of the ports are clear in the I/O permission bitmap of a 32-bit or 64-bit TSS."""
        if not self._io_sensitive():
            return True
        vcpu = self._vcpu
        table = vcpu.table("tr")
        # Bit 3 of the type: no 16-bit TSS; the others' limit is at least 67H (Intel SDM volume 3, 7.2.2).
        if not table.flags & 1 << 11 or table.limit < 0x67:
            return False
        # The map's offset is the TSS's last word. Two bytes of the map are read, wherever its bits lie, so that a map
        # is followed by a byte of ones (SDM volume 1, 18.5.2).
        at = vcpu.virtual.number(int(table.base) + 0x66, 2, system=True) + port // 8
        if at + 1 > table.limit:
            return False
        bits = vcpu.virtual.number(int(table.base) + at, 2, system=True) >> port % 8
        return not bits & (1 << size) - 1

    def load_gs(self, sel: int) -> None:
        """Load GS as native_load_gs_index does: the base that swapgs would bring is replaced, the present one stays."""
        vcpu = self._vcpu
        if vcpu.machine.kind.bits == 32:
            vcpu.load_segment("gs", sel)
            return
        # SWAPGS's way of the kernel: the new base belongs to the user and must not stand before the kernel has left.
        kernel_base = vcpu.get("gs_base")
        vcpu.load_segment("gs", sel)
        vcpu.set_msr(MSR_KERNEL_GS_BASE, vcpu.get("gs_base"))
        vcpu.set("gs_base", kernel_base)

    def swapgs(self) -> None:
        """Exchange GS.base and KERNEL_GS_BASE (64-bit, level 0)."""
        vcpu = self._vcpu
        if not vcpu.long_mode:
            raise undefined_instruction("swapgs outside 64-bit mode")
        # 64-bit mode is asked for first: #UD elsewhere, whatever the level (SDM volume 2, SWAPGS).
        if self._refused:
            self._ask("swapgs")
            return
        base, other = vcpu.get("gs_base"), vcpu.msr(MSR_KERNEL_GS_BASE)
        vcpu.set("gs_base", other)
        vcpu.set_msr(MSR_KERNEL_GS_BASE, base)


def refuse(name: str) -> GuestFault:
    """The #GP(0) that a platform raises for an instruction that it does not do for the guest."""
    return general_protection(f"{name} is not allowed at this privilege level")

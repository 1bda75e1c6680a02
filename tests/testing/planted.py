"""Backends with one bug each, of the kinds that authors make; the conformance suite must catch every one."""

from __future__ import annotations

# ruff: noqa: ARG001 - a hook takes what its op is called with, and a forgetful one uses none of it
import itertools
import time
from typing import TYPE_CHECKING, Any, Protocol

from pvops_core.backends import API, Backend
from pvops_core.hookspecs import hookimpl
from pvops_core.patching.patchlets import Patchlet

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.backends import Environment
    from pvops_core.machine import Vcpu
    from pvops_core.patching.context import PatchContext


class Owner(Protocol):
    env: Environment


BUGS: dict[str, tuple[str, str]] = {}
"""Name of the backend to the op that is wrong and what is wrong with it."""
ONLY_WHOLE = {"load_sp0", "patch"}
"""Ops whose bug shows in the guest as a whole, or at other ops, and not in a test of the op itself."""
_names = itertools.count()


def bug(base: str, what: str, patchlets: tuple[Patchlet, ...] = ()) -> Callable[[Callable[..., Any]], Backend]:
    def plant(function: Callable[..., Any]) -> Backend:
        op = function.__name__

        class Ops:
            def __init__(self, env: Environment) -> None:
                self.env = env

        function.__qualname__ = f"Ops.{op}"  # pluggy tells a method by it
        setattr(Ops, op, hookimpl(function))
        name = f"bug{next(_names)}"
        made = Backend(name=name, api=API, description=what, base=base, ops=Ops, patchlets=patchlets)
        BUGS[name] = (op, what)
        globals()[name] = made
        return made

    return plant


@bug("native", "a wrong register: it changes ebx")
def save_fl(self: Owner, cpu: Vcpu) -> int:
    cpu.set("ebx", cpu.get("ebx") ^ 1)
    return cpu.rflags


@bug("native", "a flag that it may not destroy: it leaves DF set")
def io_delay(self: Owner, cpu: Vcpu) -> None:
    cpu.rflags |= 0x400


@bug("native", "a forgotten effect: interrupts stay off")
def irq_enable(self: Owner, cpu: Vcpu) -> None:
    del cpu


@bug("native", "a forgotten invalidation")
def flush_tlb_kernel(self: Owner, cpu: Vcpu) -> None:
    del cpu


@bug("native", "a root that is not loaded")
def write_cr3(self: Owner, cpu: Vcpu, cr3: int) -> None:
    del cpu, cr3


@bug("native", "a lost interrupt: it returns at once, interrupts on")
def safe_halt(self: Owner, cpu: Vcpu) -> None:
    cpu.rflags |= 0x200


@bug("native", "too much cleared: all of CR0 below TS")
def clts(self: Owner, cpu: Vcpu) -> None:
    cpu.cr0 &= ~0xE


@bug("native", "a site overrun: it says that it used one byte more than there are")
def patch(self: Owner, ctx: PatchContext, type: int, clobbers: int, insnbuf: bytearray, addr: int, len: int) -> int:
    insnbuf[:] = b"\x90" * len
    return len + 1


def _relative_to_the_buffer(
    self: Owner, ctx: PatchContext, type: int, clobbers: int, insnbuf: bytearray, addr: int, len: int
) -> int:
    insnbuf[:5] = b"\xe8" + (ctx.target(type) & 0xFFFFFFFF).to_bytes(4, "little")
    return 5


_relative_to_the_buffer.__name__ = "patch"
bug("native", "a rel32 that is not against the site's address")(_relative_to_the_buffer)


@bug("native", "the neighbour's entry is written")
def write_gdt_entry(self: Owner, cpu: Vcpu, dt: int, entrynum: int, low: int, high: int, desc: int, size: int) -> None:
    cpu.set_u64(dt + 8 * (entrynum + 1), cpu.u64(desc) if desc else low | high << 32)


@bug("native", "one of three left out")
def load_tls(self: Owner, cpu: Vcpu, t: int, cpu_nr: int) -> None:
    first = 12 if cpu.machine.kind.bits == 64 else 6
    base = cpu.table("gdtr").base
    for number in range(2):
        cpu.set_u64(base + 8 * (first + number), cpu.u64(t + self.env.symbols["thread_tls_array_offset"] + 8 * number))


@bug("native", "the lock is never given back")
def queued_spin_unlock(self: Owner, cpu: Vcpu, lock: int) -> None:
    del cpu, lock


@bug("native", "one word too many is written")
def cpuid(self: Owner, cpu: Vcpu, eax: int, ebx: int, ecx: int, edx: int) -> None:
    for place, word in zip((eax, ebx, ecx, edx, edx + 4), (*cpu.insn.cpuid(0, 0), 1), strict=True):
        cpu.set_u32(place, word)


@bug("native", "no error for an MSR that is not there")
def read_msr_safe(self: Owner, cpu: Vcpu, msr: int, err: int) -> int:
    cpu.set_u32(err, 0)
    return cpu.msr(msr) if msr == 0xC0000100 else 0


@bug("native", "a result that is wider than its type")
def vcpu_is_preempted(self: Owner, cpu: Vcpu, cpu_nr: int) -> int:
    return 0x100 * (cpu_nr + 1)


@bug("native", "an exception of its own")
def set_fixmap(self: Owner, cpu: Vcpu, idx: int, phys: int, flags: int) -> None:
    raise ValueError(f"no such index: {idx}")


@bug("native", "the table overwrites the one before it")
def tlb_remove_table(self: Owner, cpu: Vcpu, tlb: int, table: int) -> None:
    cpu.set_word(tlb + self.env.symbols["gather_nr_offset"], 1)
    cpu.set_word(tlb + self.env.symbols["gather_tables_offset"], table)


@bug("native", "a stale value: CR2 of long ago")
def read_cr2(self: Owner, cpu: Vcpu) -> int:
    return 0


@bug("native", "another op's patchlet", (Patchlet("irq_disable", asm="sti", code="fb", layouts=("2.6.*", "6.1-*")),))
def irq_disable(self: Owner, cpu: Vcpu) -> None:
    cpu.rflags &= ~0x200


@bug("native", "the host's clock")
def load_sp0(self: Owner, cpu: Vcpu, sp0: int) -> None:
    self.env.machine.log.record("sp0", cpu.index, ns=time.perf_counter_ns())


@bug("xen", "a machine address where a physical one belongs")
def pgd_val(self: Owner, cpu: Vcpu, pgd: int) -> int:
    return pgd


@bug("xen", "an unpinned table: nothing is made read-only")
def alloc_pte(self: Owner, cpu: Vcpu, mm: int, pfn: int) -> None:
    del cpu


@bug("xen", "an unpinned address space")
def activate_mm(self: Owner, cpu: Vcpu, prev: int, next: int) -> None:
    del cpu


@bug("xen", "spare tables that stay read-only")
def pagetable_reserve(self: Owner, cpu: Vcpu, start: int, end: int) -> None:
    self.env.machine.log.record("memblock-reserve", cpu.index, start=start, end=end)


@bug("xen", "a batch that is never issued")
def mmu_lazy_mode_leave(self: Owner, cpu: Vcpu) -> None:
    del cpu


@bug("xen", "an event mask that is not touched")
def restore_fl(self: Owner, cpu: Vcpu, flags: int) -> None:
    del cpu

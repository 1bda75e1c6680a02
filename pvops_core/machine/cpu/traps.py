"""Exceptions and interrupts through the guest's own interrupt descriptor table, as the hardware delivers them.

Unicorn calls a hook instead of delivering anything, so this is what a bare-metal platform does in its place.
Source: Intel SDM volume 3, chapter 6 (6.12, 6.14, 6.15) and 7.2 for the stacks in the task state segment.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.machine.cpu import faults
from pvops_core.machine.cpu.faults import GuestFault, general_protection
from pvops_core.machine.cpu.segmentation.descriptors import read_descriptor, selector_fault
from pvops_core.machine.cpu.segmentation.segments import Descriptor
from pvops_core.machine.cpu.segmentation.stackfaults import through_stack
from pvops_core.x86 import CANONICAL_TOPS, FLAG_IF, FLAG_NT, FLAG_RF, FLAG_TF, FLAG_VM

if TYPE_CHECKING:
    from pvops_core.machine.cpu.core import Core

_TASK_GATE, _GATE_16, _TRAP_16, _GATE_32, _TRAP_32 = 5, 6, 7, 14, 15  # Intel SDM volume 3, table 3-2
_IN_IDT: Final = 2  # of an error code: its selector is a vector (6.13)
# RF is set in what faults push, not for #DB, whose handler decides, nor for traps and aborts (SDM volume 3,
# 17.3.1.1).
_FAULTS_WITHOUT_RF = frozenset({faults.DB, faults.NMI, faults.BP, faults.OF, faults.DF, faults.MC})


@attrs.frozen
class TrapEvent:
    """What is delivered.

    Attributes:
        vector: 0..255.
        error_code: pushed if not None.
        software: int n, int3 or into asked for it: the gate's DPL is checked.
        external: an interrupt from outside the instruction stream.
    """

    vector: int
    error_code: int | None = None
    software: bool = False
    external: bool = False

    @property
    def ext(self) -> int:
        """The EXT bit of error codes of faults met on the way."""
        return 0 if self.software else 1

    @property
    def pushed_rf(self) -> int:
        """RF in the pushed flags: set for faults, so that a code breakpoint is not hit twice."""
        traps = self.software or self.external or self.vector in _FAULTS_WITHOUT_RF
        return 0 if traps else FLAG_RF


@attrs.frozen
class TrapGate:
    """An interrupt or trap gate."""

    selector: int
    offset: int
    type: int
    dpl: int
    present: bool
    ist: int = 0

    @property
    def clears_if(self) -> bool:
        """An interrupt gate."""
        return not self.type & 1


@attrs.frozen
class _Stack:
    """Where the frame goes: the stack pointer above it, its segment's base, and the new SS if it changes."""

    pointer: int
    base: int
    segment: tuple[int, Descriptor] | None = None


def deliver(vcpu: Core, event: TrapEvent) -> None:
    """Deliver an event; a fault on the way becomes that fault or a double fault, and a third ends the run.

    RIP is taken as the return address, CR2 as already set.
    """
    while True:
        try:
            _deliver(vcpu, event)
        except GuestFault as second:
            # A fault while #DF is being delivered shuts the processor down (SDM volume 3, 6.15, interrupt 8).
            if event.vector == faults.DF and not event.software and not event.external:
                vcpu.machine.stop("crash", f"triple fault on vcpu {vcpu.index} at {vcpu.rip:#x}: {second.message}")
                return
            # CR2 is written although the page fault may become a double fault: the handler of #DF finds it there.
            if second.address is not None:
                vcpu.cr2 = second.address
            if event.software:
                vcpu.rip -= _length(vcpu, event.vector)  # the fault is at the instruction, not after it
            event = _combine(event, second)
        else:
            return


def _length(vcpu: Core, vector: int) -> int:
    """Bytes of the software interrupt that ends at RIP: int3 and into have one, int n two."""
    short = {faults.BP: 0xCC, faults.OF: 0xCE}.get(vector)
    # int3 and into have one-byte encodings; ``CD 03`` is two bytes and has the same vector, so the byte decides.
    return 1 if short is not None and vcpu.u8(vcpu.rip - 1) == short else 2


def _combine(first: TrapEvent, second: GuestFault) -> TrapEvent:
    # Interrupts are benign whatever comes after: the second fault is delivered alone (SDM volume 3, table 6-5).
    benign = first.software or first.external
    contributory = second.vector in faults.CONTRIBUTORY
    if not benign and (
        (first.vector in faults.CONTRIBUTORY and contributory)
        or (first.vector == faults.PF and (contributory or second.vector == faults.PF))
    ):
        return TrapEvent(faults.DF, 0)
    return TrapEvent(second.vector, second.error_code)


def _deliver(vcpu: Core, event: TrapEvent) -> None:
    long = vcpu.long_mode
    gate = read_gate(vcpu, event, long=long)
    code = read_descriptor(vcpu, gate.selector, faults.GP, event.ext)
    cpl = vcpu.cpl
    # A gate leads to more privilege or to as much, never to less (SDM volume 3, 6.12.1.1); in long mode to 64-bit code,
    # L without D (6.14.1).
    if not code.code or code.dpl > cpl or (long and (not code.long or code.big)):
        raise selector_fault(faults.GP, gate.selector, "no code segment for this gate", event.ext)
    if not code.present:
        raise selector_fault(faults.NP, gate.selector, "not present", event.ext)
    level = cpl if code.conforming else code.dpl
    flags = vcpu.rflags
    # An event there pushes four more segment registers (SDM volume 3, 20.3.1.1), and no guest here uses that mode.
    if flags & FLAG_VM:
        raise general_protection("virtual-8086 mode is not supported")
    changes = level < cpl
    # In 64-bit mode SS and RSP are pushed even where the level stays (SDM volume 3, 6.14.2).
    old = (vcpu.get("ss"), vcpu.rsp) if long or changes else ()
    frame = [*old, flags & ~FLAG_RF | event.pushed_rf, vcpu.selector("cs"), vcpu.rip]
    if event.error_code is not None:
        frame.append(event.error_code)
    wide = 8 if long else 4 if gate.type >= _GATE_32 else 2
    stack = (
        _stack_64(vcpu, gate, level, changes=changes) if long else _stack_32(vcpu, level, event.ext, changes=changes)
    )
    mask = (1 << wide * 8) - 1
    data = struct.pack(
        f"<{len(frame)}{'_HI'[wide // 2] if wide < 8 else 'Q'}", *[word & mask for word in reversed(frame)]
    )
    # Written before anything is entered: a frame that does not fit must leave the guest where it was.
    pointer = stack.pointer - len(data) & vcpu.machine.kind.mask
    try:
        vcpu.virtual.write_as(stack.base + pointer, data, user=level == 3)
    except GuestFault as fault:
        raise through_stack(fault) from None
    cleared = FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM | (FLAG_IF if gate.clears_if else 0)  # SDM volume 3, 6.12.1.3
    vcpu.enter(
        level,
        cs=(gate.selector & 0xFFFC | level, code),
        ss=stack.segment,
        rip=gate.offset,
        rsp=pointer,
        rflags=flags & ~cleared,
    )


def read_gate(vcpu: Core, event: TrapEvent, *, long: bool) -> TrapGate:
    """The gate of an event, checked: inside the table, of a known type, allowed for software, present."""
    # Gates are 16 bytes in long mode, also for compatibility code (SDM volume 3, 6.14.1).
    table = vcpu.table("idtr")
    size = 16 if long else 8
    error = event.vector * 8 | _IN_IDT
    if event.vector * size + size - 1 > table.limit:
        raise general_protection(f"vector {event.vector} is outside the IDT", error | event.ext)
    # The IDT is read at level 0, whatever the guest's level: an implicit supervisor access (SDM volume 3, 4.6.1).
    raw = vcpu.virtual.read(int(table.base) + event.vector * size, size, system=True)
    low, selector, ist, kind, high, top = struct.unpack("<HHBBHQ", raw.ljust(16, b"\0"))
    type_ = kind & 0x1F  # S with it, which is 0 of a gate
    offset = low | (high << 16 if long or type_ >= _GATE_32 else 0) | ((top & 0xFFFFFFFF) << 32 if long else 0)
    gate = TrapGate(selector, offset, type_, kind >> 5 & 3, bool(kind & 0x80), ist & 7 if long else 0)
    known = {_GATE_32, _TRAP_32} if long else {_GATE_16, _TRAP_16, _GATE_32, _TRAP_32}
    if gate.type not in known:
        what = "a task gate, which is not supported" if gate.type == _TASK_GATE else "no interrupt or trap gate"
        raise general_protection(f"vector {event.vector} has {what}", error | event.ext)
    # DPL is looked at for int n, int3 and into alone (6.12.1.2), and before the present bit.
    if event.software and vcpu.cpl > gate.dpl:
        raise general_protection(f"vector {event.vector} is not for software at this level", error)
    if not gate.present:
        raise GuestFault(f"vector {event.vector} is not present", vector=faults.NP, error_code=error | event.ext)
    return gate


def _stack_64(vcpu: Core, gate: TrapGate, level: int, *, changes: bool) -> _Stack:
    # IST switches even where the level stays, so that a bad stack does not matter to the handler of #DF or NMI
    # (6.14.5).
    if gate.ist:
        pointer = _tss_word(vcpu, 0x1C + gate.ist * 8, 8)  # IST1 is at 24H, RSP0 at 4 (SDM volume 3, figure 7-11)
    elif changes:
        pointer = _tss_word(vcpu, 4 + level * 8, 8)
    else:
        pointer = vcpu.rsp
    # The frame is aligned whatever the stack was, so that SSE can be saved there (SDM volume 3, 6.14.2)
    pointer &= ~0xF
    if pointer >> 47 not in CANONICAL_TOPS:
        raise GuestFault(f"stack at non-canonical {pointer:#x}", vector=faults.SS, error_code=0)
    if not changes:
        return _Stack(pointer, 0)
    # The new SS is null, its RPL the new level (SDM volume 3, 6.14.4).
    return _Stack(pointer, 0, (level, Descriptor(0, level << 13)))


def _stack_32(vcpu: Core, level: int, ext: int, *, changes: bool) -> _Stack:
    if not changes:
        return _Stack(vcpu.rsp, vcpu.segment("ss")[1])
    wide = bool(vcpu.table("tr").flags & 1 << 11)  # type 9 or 11: a 32-bit TSS
    # ESP0 and SS0 of a 32-bit TSS, SP0 and SS0 of a 16-bit one (SDM volume 3, figures 7-2 and 7-10).
    pointer = _tss_word(vcpu, 4 + level * 8, 4) if wide else _tss_word(vcpu, 2 + level * 4, 2)
    selector = _tss_word(vcpu, 8 + level * 8, 2) if wide else _tss_word(vcpu, 4 + level * 4, 2)
    descriptor = read_descriptor(vcpu, selector, faults.TS, ext)
    if selector & 3 != level or descriptor.dpl != level or not descriptor.writable_data:
        raise selector_fault(faults.TS, selector, f"no stack for level {level}", ext)
    if not descriptor.present:
        raise selector_fault(faults.SS, selector, "not present", ext)
    return _Stack(pointer, descriptor.base, (selector, descriptor))


def _tss_word(vcpu: Core, offset: int, size: int) -> int:
    table = vcpu.table("tr")
    # The limit is checked for the very word that is read (SDM volume 2, INT n: the current TSS's limit).
    if offset + size - 1 > table.limit:
        raise selector_fault(faults.TS, table.selector, "task state segment too short")
    return vcpu.virtual.number(int(table.base) + offset, size, system=True)

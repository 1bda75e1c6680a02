"""A Xen host: every trap of its guest comes here and goes to the hypervisor model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.backends import Platform, Settings, clock_start, cpu_model, setting
from pvops_core.errors import MachineError, UsageError
from pvops_core.machine.cpu.faults import GuestFault, general_protection
from pvops_core.machine.cpu.model.cpumodel import cpu_features, cpu_identity
from pvops_core.machine.cpu.model.identity import INTEL
from pvops_core.machine.run.eventkinds import event_kind
from pvops_core.x86 import GP, NM, PF, UD
from pvops_xen.hypervisor import builder
from pvops_xen.hypervisor.abi import (
    ERESTART,
    FLAT_KERNEL_CS64,
    FLAT_KERNEL_SS64,
    FLAT_RING3_DS32,
    PAGE_SHIFT,
    PAGE_SIZE,
    TRAP_SYSCALL_HYPERCALL32,
    Hypercall,
    VmAssist,
)
from pvops_xen.hypervisor.console import SHOWN
from pvops_xen.hypervisor.events import fifo
from pvops_xen.hypervisor.events.upcalls import unblock, upcall_due
from pvops_xen.hypervisor.grants.table import FRAMES_NEEDED
from pvops_xen.hypervisor.hypercalls import dispatch, made
from pvops_xen.hypervisor.memory.pseudophysical import PseudoPhysical
from pvops_xen.hypervisor.memory.ptwr import emulate_write
from pvops_xen.hypervisor.processor import emulate, opcodes, traps
from pvops_xen.hypervisor.processor.arrival import arrive
from pvops_xen.hypervisor.processor.bounce import deliver_upcall, enter, in_guest_kernel
from pvops_xen.hypervisor.processor.bounce64 import lower_kernel, raise_kernel
from pvops_xen.hypervisor.processor.cpuid import cpuid
from pvops_xen.hypervisor.processor.debugreg import DEBUG, forget_hits, note_debug
from pvops_xen.hypervisor.processor.ldt import window_fault
from pvops_xen.hypervisor.processor.tables import load_task_switched
from pvops_xen.hypervisor.scheduling.livelock import after_iret
from pvops_xen.hypervisor.scheduling.timers import fire_due, next_deadline, renew_time
from pvops_xen.hypervisor.state import MAX_PORT
from pvops_xen.xenstore.toolstack import REQUEST, read_request

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import numpy.typing as npt

    from pvops_core.guest import Guest
    from pvops_core.machine import Machine, Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

_HYPERCALL: Final = event_kind(
    "hypercall",
    "A hypercall returned. Its arguments are told to who looks (`platform.observe`, `made` of a test's call): here, "
    "where a boot has 93,000 of these, they would take 1 to 2 % of its time.",
    nr="int: its number",
    result="int: what it gave",
)
_TRAP: Final = event_kind(
    "trap",
    "Xen was entered by an exception.",
    vector="int: 0 to 31",
    rip="int: of the instruction",
)

_SEGMENT_FAULTS: Final = frozenset({10, 11, 12})
_DF: Final = 1 << 10
# No call looks at a sixth argument; with the selectors it is seen whether the kernel goes on in the segments it is in.
_ARGUMENTS64: Final = ("rax", "rdi", "rsi", "rdx", "r10", "r8", "cs", "ss")
_ARGUMENTS32: Final = ("eax", "ebx", "ecx", "edx", "esi", "edi")
_SYSCALL_SELECTORS: Final = (FLAT_KERNEL_CS64, FLAT_KERNEL_SS64)
_NULL_RING3: Final = 3
_CALL: Final = 6  # the number and five arguments
_LEAVING: Final = frozenset({Hypercall.IRET, Hypercall.MULTICALL})
"""Hypercalls that may go on elsewhere: iret, by itself or at the end of a list."""
_XEN_MEMORY: Final = (1 << 18) + (FRAMES_NEEDED << PAGE_SHIFT)
_HYPERCALL_NS: Final = 200  # what a trap into the hypervisor and back costs
_TRAP_NS: Final = 500


@attrs.frozen(kw_only=True)
class XenSettings(Settings):
    """What may be chosen of a Xen host."""

    seed: int = setting(0, "decides where in machine memory the guest's frames lie", least=0)
    rtc: int = clock_start(most=(1 << 64) - 1)
    cpu: str = cpu_model()
    event_channels: int = setting(
        MAX_PORT,
        "highest event channel that the guest may have, as xl's event_channels; more than 4095 (1023 for 32 bits) are "
        "of use to guests with FIFO channels alone",
        least=1,
        most=fifo.CHANNELS - 1,
    )
    console_ring: bool = setting(
        default=True, help="the guest has the ring of the paravirtual console; without, console_io alone"
    )
    console: str = setting(
        "once",
        "what is shown of what the guest prints by console_io and by its ring, which on Xen are two places: every line "
        "once (also if it comes by both), both, or one of them",
        choices=tuple(SHOWN),
    )
    shutdown: str = setting(
        "",
        "what the toolstack asks the guest to do, as xl shutdown does, and at which virtual time",
        form=REQUEST,
        check=read_request,
    )


class XenHost(Platform):
    """A Xen host with one paravirtualised domain. Its memory is machine memory; the guest's is scattered in it.

    Raises:
        MachineError: the machine is none that Xen runs on, or too small.
    """

    settings_class = XenSettings
    settings: XenSettings
    hv: Hypervisor

    def __init__(self, machine: Machine, guest: Guest, settings: XenSettings | None = None) -> None:
        super().__init__(machine, guest, settings)
        if machine.kind.value == "i386":
            # Xen dropped 32-bit guests without PAE in 3.x (the compat layer knows PAE alone).
            raise MachineError("Xen has no 32-bit guests without PAE")
        chosen = self.settings
        machine.features = cpu_features(chosen.cpu)
        machine.identity = cpu_identity(chosen.cpu)
        # AMD's registers follow other rules, of which this model has none.
        if machine.identity is not None and machine.identity.vendor != INTEL:
            raise UsageError(
                "cpu: Xen is modelled on Intel's processors, whose registers it serves; no vendor can be set"
            )
        self.hv = builder.create(
            machine, self, self.emit, seed=chosen.seed, guest_memory=chosen.memory or None, epoch=chosen.rtc
        )
        self.hv.domain.max_port = chosen.event_channels
        self.hv.domain.asked = read_request(chosen.shutdown)
        self.hv.console.ring = chosen.console_ring
        self.hv.console.show = chosen.console
        self.call_registers = _ARGUMENTS64 if machine.kind.bits == 64 else _ARGUMENTS32
        self._arguments = self.call_registers[:_CALL]
        self._registers = [cpu.batch(*self._arguments) for cpu in machine.vcpus]
        self._wide = machine.kind.bits == 64
        self._preempted = False  # the hypercall at this syscall is to be made again
        self._answered = False  # the hypercall at this syscall is made, what is pending is still to be delivered
        machine.keep(self.hv)

    @staticmethod
    def machine_memory(guest_memory: int) -> int:
        """The guest's, and what Xen takes: its M2P table (8 bytes a frame), a few tables and a window a vCPU."""
        # A word a frame for the M2P table, tables and windows, and the frames of grants.
        return guest_memory + (guest_memory >> 8 & ~(PAGE_SIZE - 1)) + _XEN_MEMORY

    def machine_address(self, pa: int) -> int:
        """Machine address of a pseudo-physical one, by the list that the domain was built with."""
        pfn = pa >> PAGE_SHIFT
        if not 0 <= pfn < self.hv.domain.nr_pages:
            raise MachineError(f"the guest has no pseudo-physical page {pfn}")
        return self.hv.domain.p2m[pfn] << PAGE_SHIFT | pa % PAGE_SIZE

    def ram(self) -> Sequence[tuple[int, int]]:
        """Pseudo-physical memory, as the M2P table has it now."""
        return PseudoPhysical.of(self.hv).ranges()

    def ram_contents(self) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """The same, with page tables as they are in a domain that was saved: entries that lead out of it are 0."""
        return PseudoPhysical.of(self.hv).contents()

    # --- hypercalls ------------------------------------------------------------------------------------------------

    def hypercall(self, vcpu: Vcpu, nr: int, *args: int) -> int:
        """Make a hypercall for the guest, as if its kernel had: the result is 0 or more, or a negative errno."""
        result = self._hypercall(vcpu, nr, *args)
        # As the guest's own call would be made again, until it is done.
        while result == -ERESTART:
            result = self._hypercall(vcpu, nr, *self.hv.continuation)
        # The stub of a kernel's hypercall is at Xen's flat segments, whatever the kernel ran in before.
        if self._wide and self.hv.registers[vcpu.index].selectors.read() != _SYSCALL_SELECTORS:
            self._return_by_sysret(vcpu)
        return result

    def _return_by_sysret(self, vcpu: Vcpu) -> None:
        """As a kernel's own hypercall does: it goes on in Xen's segments, wherever it was before."""
        if self.hv.state(vcpu).in_kernel and vcpu.in_64_bit_code:
            raise_kernel(self.hv, vcpu)

    def _hypercall(self, vcpu: Vcpu, nr: int, *args: int) -> int:
        """The same, up to its first preemption (-ERESTART)."""
        began = self.machine.clock.ns if self.observers else 0
        self.machine.clock.advance(_HYPERCALL_NS)
        result = dispatch(self.hv, vcpu, nr, args)
        self.machine.log.record(_HYPERCALL, vcpu.index, nr=nr, result=result)
        if self.observers:
            self.tell(made(self.hv, vcpu, nr, args, result, began))
        # Only where this call took a writable mapping of text away.
        if self.hv.validator.rewritten:
            self._drop_old_code(vcpu)
        return result

    def symbol_at(self, address: int) -> tuple[str, int] | None:
        """The function of the guest's kernel that an address lies in, and how far, if that is known."""
        del address
        return None

    def _drop_old_code(self, vcpu: Vcpu) -> None:
        """Text that was writable is not any more: no vCPU may go on with what it has translated of it before.

        Hardware sees to that by itself; the engine of one vCPU does not see what another writes.
        """
        rewritten = self.hv.validator.rewritten
        if self.machine.running:
            for page, alone in rewritten.items():
                self.machine.rewritten(vcpu, page, by_itself=alone)
        else:
            self.machine.invalidate([(page, page + PAGE_SIZE) for page in sorted(rewritten)])
        rewritten.clear()

    def _hypercall_from_guest(self, vcpu: Vcpu) -> None:
        nr, *values = self._registers[vcpu.index].read()
        result = self._hypercall(vcpu, nr, *values)
        if result == -ERESTART:
            self._make_again(vcpu)
        elif nr == Hypercall.IRET:
            after_iret(self.hv, vcpu)
        else:
            vcpu.set("rax", result)
        self.deliver_pending(vcpu)

    def _make_again(self, vcpu: Vcpu) -> None:
        """A hypercall was preempted: the guest is put before its instruction, with the rest for arguments."""
        # The rest of the call stands in the guest's registers, and it may take an interrupt first.
        for name, value in zip(self._arguments[1:], self.hv.continuation, strict=False):
            vcpu.set(name, value)
        vcpu.rip -= 2  # syscall and int $0x82 are two bytes long
        self.machine.loop.reschedule()

    def syscall_in_place(self, vcpu: Vcpu, *values: int) -> int | None:
        """A hypercall after which a 64-bit guest's kernel goes on where it is; most are."""
        hv = self.hv
        forget_hits(vcpu)
        # Only kernel mode, no call that may leave, and Xen's own flat segments: then RIP need not be looked at.
        if not hv.domain.vcpus[vcpu.index].in_kernel or values[0] in _LEAVING or values[_CALL:] != _SYSCALL_SELECTORS:
            return None
        result = self._hypercall(vcpu, *values[:_CALL])
        if result == -ERESTART:
            self._answered = self._preempted = True
            return None
        if vcpu.halted or not upcall_due(hv, vcpu.index):
            return result
        # The result is the guest's already; only the upcall is left to be made, with RIP moved.
        vcpu.set("rax", result)
        self._answered = True
        return None

    def deliver_pending(self, vcpu: Vcpu) -> bool:
        """Enter the guest at its event callback if an upcall is pending and not masked."""
        if self.hv.domain.crashed or vcpu.halted or not upcall_due(self.hv, vcpu.index):
            return False
        deliver_upcall(self.hv, vcpu)
        return True

    # --- traps -----------------------------------------------------------------------------------------------------

    def syscall(self, vcpu: Vcpu) -> None:
        """From kernel mode a hypercall, from user mode the guest's system-call entry."""
        hv = self.hv
        state = hv.state(vcpu)
        # The first part of this call was answered where it stood.
        if self._answered:
            self._answered = False
            if self._preempted:
                self._preempted = False
                self._make_again(vcpu)
            self.deliver_pending(vcpu)
            return
        forget_hits(vcpu)
        if not self._wide:
            self._unknown(vcpu)
            return
        registers = hv.registers[vcpu.index]
        cs, ss, rip, flags = registers.called.read()
        # What Xen's own segment is is known; a closer look at another costs as much as the rest of this.
        # Xen's flat segments are 64-bit, so only another's descriptor need be looked at.
        if cs != FLAT_KERNEL_CS64 and not vcpu.in_64_bit_code:
            self._unknown(vcpu)
            return
        registers.clobbered.write(rip, flags)
        if state.in_kernel:
            if (cs, ss) != _SYSCALL_SELECTORS:
                raise_kernel(hv, vcpu)
            self._hypercall_from_guest(vcpu)
            return
        # Without a callback there is nobody who takes a process's system calls (``lstar_enter``).
        if state.syscall.missing(hv.abi.bits):
            vcpu.rip = rip - 2
            traps.inject(hv, vcpu, UD, None, _SYSCALL_SELECTORS)
            return
        hv.stats.traps["syscall"] += 1
        enter(hv, vcpu, state.syscall, selectors=_SYSCALL_SELECTORS)
        # DF is clear at a system call's entry in Linux, which has it in SYSCALL_MASK.
        if flags & _DF:
            vcpu.rflags &= ~_DF

    def _unknown(self, vcpu: Vcpu) -> None:
        """A syscall outside of 64-bit code, where Intel's processors do not know it."""
        vcpu.rip -= 2
        traps.inject(self.hv, vcpu, UD, None)

    def sysenter(self, vcpu: Vcpu) -> None:
        """The guest's sysenter callback; without one a #GP. The processor keeps neither RIP nor RSP nor CS."""
        hv = self.hv
        forget_hits(vcpu)
        entry = hv.state(vcpu).sysenter
        # sysenter keeps neither RIP nor RSP: what the guest's entry finds there is Xen's own (SDM volume 2,
        # SYSENTER).
        vcpu.rip = vcpu.rsp = 0
        selectors = (_NULL_RING3, FLAT_KERNEL_SS64 if self._wide else FLAT_RING3_DS32)
        if entry.missing(hv.abi.bits):
            traps.inject(hv, vcpu, GP, 0, selectors)
            return
        hv.stats.traps["sysenter"] += 1
        enter(hv, vcpu, entry, selectors=selectors)

    def software_interrupt(self, vcpu: Vcpu, vector: int) -> None:
        """A hypercall of a 32-bit kernel, or a trap for the guest."""
        forget_hits(vcpu)
        # int $0x82 is the hypercall vector of 32-bit guests, from ring 1 alone.
        if vector == TRAP_SYSCALL_HYPERCALL32 and self.hv.abi.bits == 32 and vcpu.cpl == 1:
            self._hypercall_from_guest(vcpu)
        else:
            traps.software_interrupt(self.hv, vcpu, vector)

    def exception(self, vcpu: Vcpu, vector: int, error_code: int | None, address: int | None) -> None:
        """What Xen handles itself is done here; the rest is bounced to the guest."""
        hv = self.hv
        self.machine.clock.advance(_TRAP_NS)
        self.machine.log.record(_TRAP, vcpu.index, vector=vector, rip=vcpu.rip)
        if vector != DEBUG:
            forget_hits(vcpu)
        if vector == PF and address is not None:
            if not self._fixed_up(vcpu, error_code or 0, address):
                traps.inject_page_fault(hv, vcpu, error_code or 0, address)
        elif vector == GP:
            # An error code names a selector: that fault is the guest's, and no instruction to be done for it.
            emulated = not error_code and opcodes.emulate_at_rip(hv, vcpu)
            if not emulated and not lower_kernel(hv, vcpu):
                traps.inject_general_protection(hv, vcpu, error_code or 0)
        elif vector == UD:
            if not opcodes.answer_undefined(hv, vcpu):
                traps.inject(hv, vcpu, UD, None)
        elif vector not in _SEGMENT_FAULTS or not lower_kernel(hv, vcpu):
            self._note(vcpu, vector)
            traps.inject(hv, vcpu, vector, error_code)
        if hv.validator.rewritten:
            self._drop_old_code(vcpu)
        self.deliver_pending(vcpu)

    def _note(self, vcpu: Vcpu, vector: int) -> None:
        """What Xen changes before the guest gets an exception: it has the FPU now, and DR6 what the processor's had."""
        # A device-not-available fault gives the guest the FPU (``do_device_not_available``).
        if vector == NM:
            load_task_switched(self.hv, vcpu, set_ts=False)
        elif vector == DEBUG:
            note_debug(self.hv, vcpu)

    def _fixed_up(self, vcpu: Vcpu, error_code: int, address: int) -> bool:
        """``fixup_page_fault``: the window of descriptor tables, and stores to page tables."""
        hv = self.hv
        # Reserved bits and user mode: neither can be a lazily mapped LDT page.
        if not error_code & (traps.PF_USER | traps.PF_RSVD):
            try:
                if window_fault(hv, vcpu, address, error_code):
                    return True
            except GuestFault as fault:
                traps.inject_fault(hv, vcpu, fault)
                return True
        # Only a kernel's write to a page that is there and may not be written (``pv_ro_page_fault``).
        kind = error_code & (traps.PF_PROT | traps.PF_WRITE | traps.PF_RSVD | traps.PF_INSN)
        return (
            kind == traps.PF_PROT | traps.PF_WRITE
            and hv.domain.assisted(VmAssist.WRITABLE_PAGETABLES)
            and in_guest_kernel(hv, vcpu)
            and emulate_write(hv, vcpu, address)
        )

    def privileged(self, vcpu: Vcpu, name: str, *operands: int) -> int | None:
        """What Xen emulates for a guest's kernel; #GP for the rest."""
        return emulate.privileged(self.hv, vcpu, name, *operands)

    def cpuid(self, vcpu: Vcpu, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """The policy's answer, or #GP where the guest has asked for that."""
        # MSR_MISC_FEATURES_ENABLES: the guest's processes get #GP for cpuid instead of an answer.
        if opcodes.faults_on_cpuid(self.hv, vcpu):
            raise general_protection("cpuid in a process")
        return cpuid(self.hv, leaf, subleaf)

    def io_in(self, vcpu: Vcpu, port: int, size: int) -> int:
        """All ones: the domain has no devices."""
        del vcpu, port
        return (1 << 8 * size) - 1

    def io_out(self, vcpu: Vcpu, port: int, size: int, value: int) -> None:
        """Dropped."""
        del vcpu, port, size, value

    # --- scheduling ------------------------------------------------------------------------------------------------

    def halted(self, vcpu: Vcpu) -> None:
        """A guest never runs where hlt is allowed."""
        self.hv.crash(f"hlt at {vcpu.rip:#x}")

    def rouse(self, vcpu: Vcpu) -> None:
        """SCHED_block and SCHED_poll may return before there is an event."""
        unblock(self.hv, vcpu.index)

    def before_entry(self, vcpu: Vcpu) -> None:
        """On every way back to the guest: timers, the time record, then a pending upcall.

        The slice ends when the next timer or Xen's next calibration is due.
        """
        fire_due(self.hv)
        state = self.hv.domain.vcpus[vcpu.index]
        # Once a second, as Xen's own calibration does (``local_time_calibration``).
        if self.machine.clock.ns >= state.time_until:
            renew_time(self.hv, vcpu.index)
        deadline = next_deadline(self.hv)
        vcpu.expect(state.time_until if deadline is None else min(deadline, state.time_until))
        try:
            # The first run of a vCPU comes before any upcall: it has no stack to take one on yet.
            if state.arrival is not None:
                arrive(self.hv, vcpu, state.arrival)
            self.deliver_pending(vcpu)
        except GuestFault as fault:
            self.machine.exception(vcpu, fault.vector, fault.error_code, fault.address)

    def idle(self) -> bool:
        """Nobody runs: the clock goes on to the next timer."""
        # A line that waits for its second copy is shown before the guest goes to sleep.
        self.hv.console.lines.settle()
        deadline = next_deadline(self.hv)
        if deadline is None:
            return False
        # At least one nanosecond on, or a timer in the past would hold the clock still.
        self.sleep_until(max(deadline, self.machine.clock.ns + 1))
        fire_due(self.hv)
        return True

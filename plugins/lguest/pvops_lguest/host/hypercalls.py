"""The hypercalls: what each does, and the ring of those that the guest queued.

Source: drivers/lguest/hypercalls.c.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pvops_core.backends import HypercallMade
from pvops_lguest.host.abi import RING_SIZE, Call
from pvops_lguest.host.console import CONSOLE_KEY
from pvops_lguest.host.data import LguestData
from pvops_lguest.host.kill import GuestKilledError
from pvops_lguest.host.memory import PAGE_SIZE
from pvops_lguest.host.segments import GUEST_PL

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_lguest.host.state import HostState

MESSAGE_SIZE = 128
POWER_DOWN = "Power down"
"""What pm_power_off says through CRASH, where there is no SHUTDOWN."""

SHUTDOWN_POWEROFF = 1
SHUTDOWN_RESTART = 2

CR0_TS = 0x8

Handler = Callable[["Vcpu", Sequence[int]], "int | None"]
Observer = Callable[["Vcpu", Call, Sequence[int], bool], None]


class Hypercalls:
    """Serves the hypercalls of one guest (do_hcall()).

    ``observe`` is told of each call before it is done: the vCPU, the call, its arguments, and whether it came
    from the ring; ``tell`` when it has been done. A queued call is to lguest what an entry of a multicall is to Xen.
    """

    def __init__(self, state: HostState, observe: Observer, tell: Callable[[HypercallMade], None]) -> None:
        self._state = state
        self._observe = observe
        self._tell = tell
        self._handlers: Mapping[Call, Handler] = {
            Call.FLUSH_ASYNC: self._flush_async,
            Call.LGUEST_INIT: self._second_init,
            Call.CRASH: self._crash,
            Call.SHUTDOWN: self._shutdown,
            Call.LOAD_GDT: self._load_gdt,
            Call.NEW_PGTABLE: self._new_pgtable,
            Call.FLUSH_TLB: self._flush_tlb,
            Call.LOAD_IDT_ENTRY: self._load_idt_entry,
            Call.SET_STACK: self._set_stack,
            Call.TS: self._ts,
            Call.SET_CLOCKEVENT: self._set_clockevent,
            Call.HALT: self._halt,
            Call.BIND_DMA: self._bind_dma,
            Call.SEND_DMA: self._send_dma,
            Call.SET_PTE: self._set_pte,
            Call.SET_PGD: self._set_pgd,
            Call.SET_PMD: self._set_pmd,
            Call.LOAD_TLS: self._load_tls,
            Call.NOTIFY: self._notify,
            Call.LOAD_GDT_ENTRY: self._load_gdt_entry,
            Call.SEND_INTERRUPTS: self._send_interrupts,
        }

    def enter(self, vcpu: Vcpu, number: int, arguments: Sequence[int]) -> int | None:
        """do_hypercalls(): do what waits in the ring, in order, then the call itself.

        The first call of a guest must be LGUEST_INIT.

        Args:
            vcpu: the CPU that makes it.
            number: the call number of the guest's ABI.
            arguments: as many as the ABI carries, 32 bit each.

        Returns:
            What the guest finds in eax; None if eax is left alone.

        Raises:
            GuestKilledError: the guest's end, deserved or asked for.
        """
        # Before LGUEST_INIT there is no ring to look into, and no call but that one is allowed (initialize()).
        if self._state.data is None:
            began = vcpu.machine.clock.ns
            self._initialize(vcpu, number, arguments)
            self._tell(HypercallMade(vcpu.index, Call.LGUEST_INIT.value, tuple(arguments), 0, began))
            return None
        # Queued calls were made first, so they must have been done first: the guest counts on it for page tables.
        self._drain(vcpu, self._state.data)
        return self._call(vcpu, number, arguments, queued=False)

    def _call(self, vcpu: Vcpu, number: int, arguments: Sequence[int], *, queued: bool) -> int | None:
        call = self._state.abi.calls.get(number)
        if call is None:
            raise GuestKilledError(f"Bad hypercall {number}")
        began = vcpu.machine.clock.ns
        self._observe(vcpu, call, arguments, queued)
        result = self._handlers[call](vcpu, arguments)
        self._tell(HypercallMade(vcpu.index, call.value, tuple(arguments), result or 0, began, queued))
        return result

    def _drain(self, vcpu: Vcpu, data: LguestData) -> None:
        """Do the queued calls, from where the last drain stopped to the first free entry, once round at most.

        The real host pauses for its launcher after a NOTIFY or SEND_DMA and comes back for the rest; the
        launcher's part is done at once here, so the order is the same without the pause.
        """
        state = self._state
        # Once round, as do_async_hcalls(), which looks at each status a single time.
        for _ in range(RING_SIZE):
            index = state.next_hcall
            # 0xFF is where the guest has not written yet; it fills entries in order, so nothing waits behind it.
            if not data.ring_pending(index):
                return
            # Before the call, as do_async_hcalls() does: one that ends the guest leaves the cursor behind it.
            state.next_hcall = (index + 1) % RING_SIZE
            number, *arguments = data.ring_entry(index)
            self._call(vcpu, number, arguments, queued=True)
            # After it, for the guest may overwrite an entry that is free.
            data.ring_done(index)

    # Start and end

    def _initialize(self, vcpu: Vcpu, number: int, arguments: Sequence[int]) -> None:
        state = self._state
        # The guest has no tables of ops yet, so any other call means that its start went wrong.
        if state.abi.calls.get(number) is not Call.LGUEST_INIT:
            raise GuestKilledError(f"hypercall {number} before INIT")
        self._observe(vcpu, Call.LGUEST_INIT, arguments, False)  # noqa: FBT003 - a callback has no keywords
        data = LguestData(state.memory, state.abi, arguments[0])
        kernel_address = data.kernel_address
        if kernel_address is not None:
            # Kernel mappings start there, and none may reach into the switcher's part.
            if kernel_address >= state.shadow.paging.switcher:
                raise GuestKilledError(f"bad kernel address {kernel_address:#x}")
            state.shadow.kernel_address = kernel_address
        # The host sets its gates up for one vector (init_interrupts()), and this one has 0x80.
        if data.syscall_vec not in (None, state.traps.syscall_vector):
            raise GuestKilledError(f"bad system call vector {data.syscall_vec:#x}")
        data.fill(tsc_khz=state.tsc_khz, pgdir=state.shadow.gpgdir, reserved=state.shadow.paging.reserved)
        state.data = data
        state.interrupts.noirq = data.noirq
        # Else the kernel's start, which reads the time before any interrupt, would be in 1970.
        state.write_time()
        # initialize() does so, for its writes could move the page; here it keeps the counts of shadow fills true.
        state.shadow.clear_all()

    def _second_init(self, _vcpu: Vcpu, _arguments: Sequence[int]) -> None:
        raise GuestKilledError("already have lguest_data")

    def _message(self, pa: int) -> str:
        text = self._state.memory.read(pa, MESSAGE_SIZE)[: MESSAGE_SIZE - 1]
        return text.partition(b"\0")[0].decode("latin-1")

    def _crash(self, _vcpu: Vcpu, arguments: Sequence[int]) -> None:
        message = self._message(arguments[0])
        # Before SHUTDOWN the words of the crash are all that tell an end that was wanted.
        outcome = "poweroff" if message == POWER_DOWN else "crash"
        raise GuestKilledError(f"CRASH: {message}", outcome=outcome)

    def _shutdown(self, _vcpu: Vcpu, arguments: Sequence[int]) -> None:
        message = self._message(arguments[0])
        outcomes = {SHUTDOWN_POWEROFF: "poweroff", SHUTDOWN_RESTART: "reboot"}
        # A panic is the same call with reason "power off"; only the text tells them apart, as for a reader.
        outcome = outcomes.get(arguments[1], "crash")
        if outcome == "poweroff" and message != POWER_DOWN:
            outcome = "crash"
        raise GuestKilledError(f"CRASH: {message}", outcome=outcome)

    # Processor state

    def _load_gdt(self, _vcpu: Vcpu, arguments: Sequence[int]) -> None:
        self._state.segments.load_gdt(arguments[0], arguments[1])

    def _load_gdt_entry(self, _vcpu: Vcpu, arguments: Sequence[int]) -> None:
        self._state.segments.load_entry(*arguments[:3])

    def _load_tls(self, _vcpu: Vcpu, arguments: Sequence[int]) -> None:
        self._state.segments.load_tls(arguments[0])

    def _load_idt_entry(self, _vcpu: Vcpu, arguments: Sequence[int]) -> None:
        self._state.traps.load_idt_entry(*arguments[:3])

    def _set_stack(self, _vcpu: Vcpu, arguments: Sequence[int]) -> None:
        ss, esp, pages = arguments[:3]
        # guest_set_stack(): ring 0 would be the host's.
        if ss & 3 != GUEST_PL:
            raise GuestKilledError(f"bad stack segment {ss}")
        # A kernel's stack is of 4 KiB or 8 KiB, and each page costs a pinned entry.
        if pages > 2:
            raise GuestKilledError(f"bad stack pages {pages}")
        stack, shadow = self._state.stack, self._state.shadow
        stack.ss1, stack.esp1, stack.pages = ss, esp, pages
        # esp is one past the stack's last byte, which may be the first of an unmapped page.
        shadow.pinned = tuple((esp - 1 - page * PAGE_SIZE) & 0xFFFFFFFF for page in range(pages))
        # At once: a direct trap pushes on this stack without the host, and a fault on it would be a double fault.
        shadow.pin_all()

    def _ts(self, vcpu: Vcpu, arguments: Sequence[int]) -> None:
        self._state.ts = arguments[0] != 0
        # The real flag follows the guest's at once, so that device_not_available comes exactly when it asked for it.
        vcpu.cr0 = vcpu.cr0 & ~CR0_TS | (CR0_TS if self._state.ts else 0)

    # Page tables

    def _new_pgtable(self, _vcpu: Vcpu, arguments: Sequence[int]) -> None:
        self._state.shadow.new_pgtable(arguments[0])

    def _flush_tlb(self, _vcpu: Vcpu, arguments: Sequence[int]) -> None:
        if arguments[0]:
            self._state.shadow.clear_all()
        else:
            self._state.shadow.flush_user()

    def _set_pte(self, _vcpu: Vcpu, arguments: Sequence[int]) -> None:
        # Without PAE there is no fourth argument, and its register holds what the guest last had in it.
        gpgdir, va, low, high = (*arguments, 0)[:4]
        wide = self._state.shadow.paging.size > 4
        self._state.shadow.set_pte(gpgdir, va, low | high << 32 if wide else low)

    def _set_pgd(self, _vcpu: Vcpu, arguments: Sequence[int]) -> None:
        self._state.shadow.set_pgd(*arguments[:2])

    def _set_pmd(self, _vcpu: Vcpu, arguments: Sequence[int]) -> None:
        """Of PAE's level in the middle all shadows go: nobody knows which directories have the table."""
        # Before the directory's call had its own name, SET_PMD was of a directory's entry.
        if self._state.abi.has(Call.SET_PGD):
            self._state.shadow.clear_all()
        else:
            self._state.shadow.set_pgd(*arguments[:2])

    # Time and interrupts

    def _set_clockevent(self, vcpu: Vcpu, arguments: Sequence[int]) -> None:
        interrupts = self._state.interrupts
        interrupts.set_clockevent(vcpu.machine.clock.ns, arguments[0])
        # The vCPU may be in a long run of blocks: it must come back when the timer is due.
        if interrupts.deadline is not None:
            vcpu.expect(interrupts.deadline)

    def _halt(self, vcpu: Vcpu, _arguments: Sequence[int]) -> None:
        # Waking sets irq_enabled: HALT stands for sti; hlt, which no interrupt may come between.
        self._state.interrupts.halted = True
        vcpu.halt()

    def _send_interrupts(self, _vcpu: Vcpu, _arguments: Sequence[int]) -> None:
        """Nothing: coming here is what it is for, since interrupts are looked at on the way back from any call."""

    def _flush_async(self, _vcpu: Vcpu, _arguments: Sequence[int]) -> None:
        """Nothing: the ring was emptied before."""

    # Devices

    def _bind_dma(self, _vcpu: Vcpu, arguments: Sequence[int]) -> int:
        return self._state.dma.bind(*arguments[:3])

    def _send_dma(self, _vcpu: Vcpu, arguments: Sequence[int]) -> None:
        key, pa = arguments[:2]
        self._state.console.send_dma(key, pa)
        # The console is the host's own; every other key is a device's of the launcher.
        if key != CONSOLE_KEY:
            self._state.dma_sent(key)

    def _notify(self, _vcpu: Vcpu, arguments: Sequence[int]) -> None:
        devices = self._state.devices
        # Addresses above memory are devices'; one in it is text, from before the console has a driver.
        if devices is None or not devices.notify(arguments[0]):
            self._state.console.early(arguments[0])

"""The debug registers of one vCPU: instruction, data and port breakpoints, single steps, and who may touch them.

Source: Intel SDM volume 3, 17.2 (registers) and 17.3 (exceptions). An instruction breakpoint is a fault before the
instruction, which RF lets pass once; data and port breakpoints are traps after theirs. After a load of SS nothing of
this comes before one more instruction has run (6.8.3). What Python does for the guest touches nothing that is watched.

What is not armed costs nothing; an instruction breakpoint costs what ``Machine.break_at`` does, a data or port
breakpoint makes the vCPU look at every access and instruction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.machine.cpu import faults
from pvops_core.machine.cpu.faults import GuestFault
from pvops_core.machine.engines import CODE_CALLBACK, Watch
from pvops_core.x86 import DR6_RESET, DR7_RESET, FLAG_RF

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine.cpu.core import Core
    from pvops_core.machine.engines import Engine

DR6_HITS, DR6_BD, DR6_BS = 0xF, 1 << 13, 1 << 14  # Intel SDM volume 3, 17.2.3
DR7_GD: Final = 1 << 13
_CR4_DE: Final = 1 << 3
_STI: Final = 0xFB  # its shadow is on interrupts (SDM volume 2, STI), that of mov ss on breakpoints too (3, 6.8.3)
_EXECUTE, _WRITE, _PORT, _ACCESS = range(4)  # R/W of DR7; ports only with CR4.DE (Intel SDM volume 3, 17.2.4)
_LENGTHS: Final = (1, 2, 8, 4)  # bytes by LEN of DR7, where 10B is eight (SDM volume 3, 17.2.4)


@attrs.frozen
class Armed:
    """An enabled breakpoint: number, what it waits for (DR7's two bits), first address and length."""

    number: int
    kind: int
    start: int
    length: int

    def overlaps(self, start: int, size: int) -> bool:
        """Whether an access touches it."""
        return start < self.start + self.length and self.start < start + size


class DebugRegisters:
    """DR0 to DR7 of a vCPU; a hypervisor arms its guests' with ``write``.

    Args:
        vcpu: whose they are.
        engine: its engine.

    Attributes:
        watching: data or ports are watched, so that accesses have to be told; asked so often that it is no property.
    """

    def __init__(self, vcpu: Core, engine: Engine, hit: Callable[[], None]) -> None:
        self._vcpu = vcpu
        self._hit = hit
        self._engine = engine
        self._armed: tuple[Armed, ...] = ()
        self._hooks: list[int] = []
        self._watch: Watch | None = None
        self.watching = False
        self._waits = False
        self.serve: Callable[..., None] = lambda *_: None

    def read(self, number: int) -> int:
        """DR0 to DR3, DR6 or DR7."""
        return self._vcpu.get(f"dr{number}")

    def write(self, number: int, value: int) -> None:
        """Set a register without any check but for its fixed bits, and arm what DR7 then enables."""
        if number == 6:
            # What is 1 after a reset is reserved and stays so (Intel SDM volume 3, 17.2.3); of DR7 below, 17.2.4.
            value = value & 0xFFFFFFFF | DR6_RESET
        elif number == 7:
            value = value & 0xFFFF2FFF | DR7_RESET
        self._vcpu.set(f"dr{number}", value)
        # DR6 only reports, so writing it arms nothing.
        if number != 6:
            self.refresh()

    def reset(self) -> None:
        """As after INIT."""
        # DR7 first: with everything off, the addresses change without arming what they pass through.
        for number, value in ((7, DR7_RESET), (6, DR6_RESET), (0, 0), (1, 0), (2, 0), (3, 0)):
            self.write(number, value)

    def refresh(self) -> None:
        """Arm what the registers say, if it is not; to be called when they, or CR4.DE, have changed by themselves."""
        armed = self._enabled()
        if armed != self._armed:
            self._disarm()
            self._armed = armed
            self._arm()

    def _enabled(self) -> tuple[Armed, ...]:
        dr7 = self.read(7)
        # L0 to G3 are DR7's low byte: most vCPUs have none set, and this is asked at each change of CR4.
        if not dr7 & 0xFF:
            return ()
        armed = []
        ports = bool(self._vcpu.cr4 & _CR4_DE)
        for number in range(4):
            if not dr7 >> 2 * number & 3:  # L and G: for this task, or for all (SDM volume 3, 17.2.4)
                continue
            kind, length = dr7 >> 16 + 4 * number & 3, _LENGTHS[dr7 >> 18 + 4 * number & 3]
            if kind != _PORT or ports:
                # LEN masks the address's low bits: what is watched is aligned to its length (SDM volume 3, 17.2.5).
                length = 1 if kind == _EXECUTE else length
                armed.append(Armed(number, kind, self.read(number) & -length, length))
        return tuple(armed)

    def _arm(self) -> None:
        def reached(_engine: int, address: int, _size: int, _data: int) -> None:
            self.serve(self._at_instruction, address)

        for start in {each.start for each in self._armed if each.kind == _EXECUTE}:
            self._hooks.append(self._engine.hook_code(CODE_CALLBACK(reached), start, start))
        data = [each for each in self._armed if each.kind in {_WRITE, _ACCESS}]
        if data or any(each.kind == _PORT for each in self._armed):
            self._watch = Watch(
                self._engine,
                [(each.start, each.length) for each in data],
                self._touched,
                lambda address: self.serve(self._after_instruction, address),
                loads=any(each.kind == _ACCESS for each in data),
            )
            self.watching = True

    def _disarm(self) -> None:
        for hook in self._hooks:
            self._engine.unhook_code(hook)
        self._hooks.clear()
        if self._watch is not None:
            self._watch.close()
            self._watch = None
            self.watching = self._waits = False

    # What comes of them

    def raise_(self, bits: int) -> None:
        """#DB with these bits of DR6 (0: it stays as it is), RIP as it is; the handler may touch the registers."""
        if bits:
            self.write(6, self.read(6) & ~DR6_HITS | bits)
        # Delivery of #DB clears GD, so that the handler itself may use the registers (SDM volume 3, 17.2.4).
        if self.read(7) & DR7_GD:
            self.write(7, self.read(7) & ~DR7_GD)
        self._hit()

    def check_access(self) -> None:
        """Before an instruction moves a debug register: with DR7.GD, #DB instead."""
        if self.read(7) & DR7_GD:
            # BD says why it came (SDM volume 3, 17.2.3).
            self.write(6, self.read(6) | DR6_BD)
            self.write(7, self.read(7) & ~DR7_GD)
            raise GuestFault("a debug register is touched with DR7.GD", vector=faults.DB)

    def stepped(self) -> bool:
        """The engine has stepped for TF and says so in DR6: whether #DB comes of it, with what else was hit."""
        if self._behind_stack_load():
            self.write(6, self.read(6) & ~(DR6_BS | DR6_HITS))
            return False
        # The processor never clears B0 to B3 by itself; a handler does. Hits of a step before must not be told as
        # this one's.
        self.write(6, self.read(6) & ~DR6_HITS | self._take_hits())
        if self.read(7) & DR7_GD:
            self.write(7, self.read(7) & ~DR7_GD)
        return True

    def faulted(self) -> None:
        """The instruction under way has faulted: what it has touched is not told, since it will be executed again."""
        # Taken and thrown away: a hit is told once, when the instruction has completed.
        self._take_hits()
        self._waits = False

    def on_port(self, port: int, size: int) -> None:
        """The instruction under way reads or writes a port."""
        if self._watch is not None:
            for each in self._armed:
                if each.kind == _PORT and each.overlaps(port, size):
                    self._watch.hits |= 1 << each.number

    @property
    def watches_ports(self) -> bool:
        """Whether every access of a port must be told."""
        return any(each.kind == _PORT for each in self._armed)

    def _take_hits(self) -> int:
        if self._watch is None:
            return 0
        hits, self._watch.hits = self._watch.hits, 0
        return hits

    def _behind_stack_load(self) -> bool:
        """The last instruction loaded SS; sti casts the same shadow on interrupts, but none on this."""
        vcpu = self._vcpu
        if not vcpu.interrupt_shadow:
            return False
        # RIP is behind the instruction already, and sti is one byte.
        at = vcpu.rip - 1 if vcpu.in_64_bit_code else vcpu.rip + vcpu.segment("cs")[1] - 1
        return vcpu.virtual.number(at, 1, system=True) != _STI

    def _at_instruction(self, vcpu: Core, address: int) -> None:
        flags = vcpu.rflags
        if flags & FLAG_RF:
            vcpu.rflags = flags & ~FLAG_RF  # the engine would keep it until its block ends
        elif not self._behind_stack_load():
            bits = sum(1 << each.number for each in self._armed if each.kind == _EXECUTE and each.start == address)
            if bits:
                self.raise_(bits)

    def _after_instruction(self, _vcpu: Core, _address: int) -> None:
        if self._behind_stack_load() and not self._waits:
            self._waits = True
            return
        self._waits = False
        if hits := self._take_hits():
            self.raise_(hits)

    def _touched(self, physical: int, size: int, write: bool) -> int:  # noqa: FBT001 - as the engine tells it
        """Which data breakpoints an access hits: its page is theirs, and the instruction names their address."""
        from pvops_core.machine.cpu.memory.decode import accesses  # noqa: PLC0415 - the disassembler

        data = [each for each in self._armed if each.kind == _ACCESS or (each.kind == _WRITE and write)]
        near = [each for each in data if self._same_page(each, physical, size)]
        if not near:
            return 0
        found = [self._linear(access.segment, access.offset, access.size) for access in accesses(self._vcpu)]
        return sum(1 << each.number for each in near if any(each.overlaps(*span) for span in found))

    def _same_page(self, armed: Armed, physical: int, size: int) -> bool:
        # By physical addresses, which the engine tells: an instruction is decoded only where they meet.
        try:
            start = self._vcpu.walk(armed.start, user=False).pa
        except GuestFault:
            return False
        return start < physical + size and physical < start + armed.length

    def _linear(self, segment: str, offset: int, size: int) -> tuple[int, int]:
        vcpu = self._vcpu
        if vcpu.in_64_bit_code:
            # In 64-bit mode only FS and GS have a base (SDM volume 3, 3.4.4).
            base = vcpu.get(f"{segment}_base") if segment in {"fs", "gs"} else 0
        else:
            base = vcpu.segment(segment)[1]
        return base + offset & vcpu.machine.kind.mask, size

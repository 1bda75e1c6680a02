"""Accesses of 16- and 32-bit code that the engine makes in pieces are made whole or not at all.

It moves images of the FPU, words of a far call or of ``enter``, ``pusha`` and ``popa`` one by one; where the second
page refuses, the first has been stored to, or some of the registers loaded. A processor leaves nothing of that
behind. At the fault it is too late: the old half exists nowhere. So each block of such code is looked at when it is
translated, and such an instruction in it gets a hook that computes where it is about to go: what lies on one page, and
is aligned where it must be, goes on after some nanoseconds; of what does not, Python looks at both pages first.

``ins`` stores a zero before it asks for the port. What lay there is kept, and put back if the port is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu import faults
from pvops_core.machine.cpu.faults import GuestFault
from pvops_core.machine.cpu.segmentation.segments import allows
from pvops_core.machine.engines import PieceGuards, Site
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from pvops_core.machine.cpu.memory.pieces import Piece
    from pvops_core.machine.engines import Context
    from pvops_core.machine.exits.handlers import Handlers

_ALIGNMENT: Final = 15
_RESUME: Final = 1 << 16
_FIRST: Final = 256
"""Bytes of the first block that are looked at."""


class WholeAccesses:
    """What one vCPU does about it.

    Args:
        handlers: how Python is called for it.
        context: a context of its own.

    Attributes:
        waiting: the engine has told of no block yet.
        looked: a block has been looked at, and the engine stopped in order to begin it again.
    """

    def __init__(self, handlers: Handlers, context: Context) -> None:
        vcpu, engine, guarded = handlers.vcpu, handlers.engine, handlers.guarded
        self._vcpu = vcpu
        self._engine = engine
        self._restart = handlers.restart
        self._awaited: tuple[int, bool] | None = None
        self._fault: GuestFault | None = None
        self._kept: tuple[int, int, bytes] | None = None
        self.looked = False
        self.waiting = True
        machine = vcpu.machine
        look, check = guarded(self._look), guarded(self._check)
        self._guards = PieceGuards(engine, context, machine.layout, machine.memory.address, look, check)

    def refused(self) -> GuestFault | None:
        """The fault because of which the engine has just left, if it was for this."""
        fault, self._fault = self._fault, None
        if fault is not None:
            # The way out has cost the counter, which the hook kept before (``guarding`` says why).
            self._vcpu.set("rcx" if self._engine.bits == 64 else "ecx", self._guards.counter)
        return fault

    def forget(self) -> None:
        """The engine is about to start: what it passed before is of no account."""
        self._guards.forget()

    def faulted(self, address: int) -> GuestFault | None:
        """An instruction has faulted, at a linear address, and its flags are those before it.

        Returns:
            The fault that words give that are pushed in their order, where the engine has pushed them in another.
        """
        flags = self._guards.flags_at(address)
        if flags is None:
            return None
        # RF is what the engine has set for the fault; the others are those of before the instruction.
        self._vcpu.rflags = flags | self._vcpu.rflags & _RESUME
        self._check(words=True)
        fault, self._fault = self._fault, None
        return fault

    # While blocks are translated

    def begin(self) -> None:
        """The engine is about to start: until a block has led it to another, it tells nobody what it translates."""
        if self._guards.told:
            self.waiting = False
            return
        vcpu = self._vcpu
        if vcpu.in_64_bit_code:
            return
        rip = vcpu.rip + vcpu.segment("cs")[1] & 0xFFFFFFFF
        try:
            vcpu.walk(rip, fetch=True)
            code = vcpu.virtual.read(rip, PAGE - rip % PAGE, system=True)[:_FIRST]
        except GuestFault:
            return
        if self._stand(rip, code):
            self._engine.remove_code(rip, rip + len(code))

    def _look(self, start: int, size: int) -> None:
        """A block has been translated, and not yet run."""
        # The block that made us stop has come again, now with its hook in place.
        if self._awaited is not None and self._awaited == (start, self._guards.alone):
            self._awaited = None
            self._guards.rest()
            return
        vcpu, physical = self._vcpu, self._guards.physical
        if physical is None:
            code = vcpu.virtual.read(start, size, system=True)
        else:
            code = vcpu.machine.memory.read(physical, size)
        if self._stand(start, code):
            self._awaited = start, self._guards.alone
            # Translated without the hook, and not yet run: once removed, it is translated again with it.
            self._engine.remove_code(start, start + 1)
            self.looked = True
            self._restart()

    def _stand(self, start: int, code: bytes) -> bool:
        """Have those in a piece of code looked at; whether that is new."""
        from pvops_core.machine.cpu.memory.decode import code_bits  # noqa: PLC0415 - the disassembler
        from pvops_core.machine.cpu.memory.pieces import pieces  # noqa: PLC0415 - likewise

        bits = code_bits(self._vcpu)
        found = [self._site(piece) for piece in pieces(code, start, bits, self._stack())]
        return bool(found) and self._guards.stand(found)

    def _stack(self) -> int:
        return 32 if self._vcpu.segment("ss")[3] & 1 << 22 else 16

    def _site(self, piece: Piece) -> Site:
        base, other = (self._engine.register_id(name) if name else 0 for name in (piece.base, piece.index))
        reach = 2 * piece.size if piece.is_words else piece.size  # the last of words is the first that is pushed
        # Below this offset in a page all of it lies on the page, so that nothing need be looked at.
        room = -1 if piece.is_input or self._vcpu.segment(piece.segment)[1] & PAGE - 1 else PAGE - reach
        alignment = _ALIGNMENT if piece.aligned else 0
        return Site(piece.address, base, other, piece.scale, piece.distance, room, alignment)

    # While they run

    def _check(self, *, words: bool = False) -> bool:
        """Before an instruction that may go wrong midway, or only one of several words: whether it is refused."""
        from pvops_core.machine.cpu.memory.decode import accesses, code_bits, instruction  # noqa: PLC0415
        from pvops_core.machine.cpu.memory.pieces import faults_before, piece_of  # noqa: PLC0415

        vcpu = self._vcpu
        bits = code_bits(vcpu)
        found = instruction(vcpu, bits)
        piece = None if found is None else piece_of(found, bits, self._stack())
        if piece is None or faults_before(vcpu, piece) or (words and not piece.is_words):
            return False
        if piece.is_input:
            # A refused port leaves no trace of the zero that the engine stores before it asks.
            self._keep(self._offset(piece), piece.size)
            return False
        try:
            if piece.is_words:
                for access in accesses(vcpu):
                    self._probe(access.segment, access.offset, access.size, write=access.write)
            if not piece.is_words or piece.name == "enter":  # which wants to write at the new stack pointer as well
                size = 1 if piece.is_words else piece.size
                place = piece.segment, self._offset(piece), size
                self._probe(*place, write=piece.write, aligned=piece.aligned)
        except GuestFault as fault:
            self._fault = fault
        return self._fault is not None

    def _offset(self, piece: Piece) -> int:
        values = [self._vcpu.get(name) for name in piece.registers]
        if piece.index:
            values[-1] *= piece.scale
        return sum(values) + piece.distance & (1 << piece.width) - 1

    def _probe(self, segment: str, offset: int, size: int, *, write: bool, aligned: bool = False) -> None:
        """Raise the fault of an access."""
        vcpu = self._vcpu
        vector = faults.SS if segment == "ss" else faults.GP
        _, base, limit, high = vcpu.segment(segment)
        first = base + offset & 0xFFFFFFFF
        inside = min(size, (1 << 32) - offset)  # offsets wrap, as they do where nothing is looked at
        if not allows(limit, high, offset, inside, write=write):
            raise GuestFault(f"{segment}:{offset:#x} may not be accessed", vector=vector, error_code=0)
        if aligned and first & _ALIGNMENT:
            raise GuestFault(f"{first:#x} is not aligned", vector=faults.GP, error_code=0)
        last = first + size - 1 & 0xFFFFFFFF
        vcpu.walk(first, write=write)
        # Both pages before anything is moved: that is all that making it whole takes.
        if first // PAGE != last // PAGE:
            vcpu.walk(last // PAGE * PAGE, write=write)

    # Input

    def _keep(self, offset: int, size: int) -> None:
        """Note what lies where ``ins`` is about to store; where that is not there its store faults."""
        vcpu = self._vcpu
        first = vcpu.segment("es")[1] + offset & 0xFFFFFFFF
        try:
            self._kept = vcpu.rip, first, vcpu.virtual.read(first, size, system=True)
        except GuestFault:
            return

    def put_back(self) -> None:
        """The port was refused, and the vCPU is at its instruction again."""
        kept, self._kept = self._kept, None
        if kept is not None and kept[0] == self._vcpu.rip:
            # As the system: the store that is undone here was allowed a moment ago.
            self._vcpu.virtual.write(kept[1], kept[2], system=True)

"""Proves what a piece of code does to the registers, the stack and the memory of the site it is put into.

The code is followed along each of its paths with a token in every register: where the value came from. That is exact
for the straight or forward-branching code that replaces a call; anything else is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

import attrs

from pvops_core.errors import PatchError
from pvops_core.ops import Convention
from pvops_core.ops.abi import CALLER_SAVED
from pvops_core.patching.code.disasm import Flow, Instruction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pvops_core.ops import Signature

_GENERAL = {
    32: ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp"),
    64: ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", *(f"r{number}" for number in range(8, 16))),
}
_FLAGS = "flags"
_MADE = "made"
_INTERRUPT_FLAG = "the interrupt flag"
_MAY_CHANGE_INTERRUPT_FLAG = frozenset({"irq_disable", "irq_enable", "restore_fl", "safe_halt"})
_FLOATING = ("xmm", "ymm", "zmm", "mm", "st")
_MOST_PATHS = 64  # code of a few instructions has few; each branch doubles them


@attrs.frozen
class Rules:
    """What the code may do.

    Attributes:
        signature: how the op is called.
        may_write: registers that it may leave changed, those of the result among them.
        places: addresses of the symbols that the code itself names: it may write there and call there.
        keeping: those of them whose call changes no register.
    """

    signature: Signature
    may_write: frozenset[str]
    places: frozenset[int]
    keeping: frozenset[int] = frozenset()

    @property
    def arguments(self) -> Mapping[str, str]:
        """Registers that hold arguments, to the argument's name."""
        return {register: place.name for place in self.signature.places for register in place.registers}


@attrs.frozen
class _State:
    registers: Mapping[str, str]
    stack: tuple[str, ...] = ()

    def put(self, register: str, token: str) -> _State:
        return attrs.evolve(self, registers={**self.registers, register: token})


def check(code: Sequence[Instruction], rules: Rules, refuse: Refuse) -> None:
    """Follow the code along all its paths; ``refuse`` is called with the reason if it breaks a rule."""
    _Walk(code, rules, refuse).run()


class Refuse:
    """Raises PatchError with the op and the bytes concerned."""

    def __init__(self, op: str, code: bytes) -> None:
        self.op = op
        self.code = code

    def __call__(self, reason: str) -> NoReturn:
        """Refuse the code for this reason."""
        raise PatchError(reason, op=self.op, code=self.code)


class _Walk:
    def __init__(self, code: Sequence[Instruction], rules: Rules, refuse: Refuse) -> None:
        self.code = code
        self.rules = rules
        self.refuse = refuse
        self.bits = rules.signature.kind.bits
        self.end = code[-1].address + code[-1].size if code else 0
        self.index = {insn.address: number for number, insn in enumerate(code)} | {self.end: len(code)}
        op = rules.signature.op
        self.writable = frozenset(
            register
            for place, arg in zip(rules.signature.places, op.args, strict=True)
            for register in place.registers
            if arg.ctype.pointer and not arg.ctype.name.startswith("const")
        )
        self.jumped_to = op.convention is Convention.JUMP

    def run(self) -> None:
        pending = [(0, _State({name: name for name in (*_GENERAL[self.bits], _INTERRUPT_FLAG)}))]
        paths = 0
        while pending:
            number, state = pending.pop()
            if number == len(self.code):
                paths += 1
                self.finish(state)
                continue
            if paths + len(pending) > _MOST_PATHS:
                self.refuse(f"it has more than {_MOST_PATHS} paths")
            insn = self.code[number]
            after = self.step(insn, state)
            pending += [(where, after) for where in self.follow(insn, number, after)]

    def follow(self, insn: Instruction, number: int, state: _State) -> list[int]:
        match insn.flow:
            # A site is in the middle of a function: to return there would leave the caller's frame.
            case Flow.RETURN:
                self.refuse(f"{insn.text}: it would return from the caller")
            case Flow.LEAVE:
                if not self.jumped_to:
                    self.refuse(f"{insn.text}: the op is called and must come back")
                self.check_kept(state)
                return []
            case Flow.CALL:
                # A call of anything else could destroy whatever it likes.
                if insn.target not in self.rules.places:
                    self.refuse(f"{insn.text}: it calls what it does not name as a place")
            case Flow.JUMP | Flow.BRANCH:
                return self.jump(insn, number, state)
            case Flow.ON:
                pass
        return [number + 1]

    def jump(self, insn: Instruction, number: int, state: _State) -> list[int]:
        onward = [number + 1] if insn.flow is Flow.BRANCH else []
        if insn.target in self.rules.places:
            if not self.jumped_to:
                self.refuse(f"{insn.text}: the op is called and must come back")
            self.check_kept(state)
            return onward
        where = self.index.get(insn.target) if insn.target is not None else None
        if where is None:
            self.refuse(f"{insn.text}: it jumps to no instruction of its own and to no place")
        # Without jumps back every path has an end, and all of them can be followed.
        if where <= number:
            self.refuse(f"{insn.text}: it jumps back and might never end")
        return [*onward, where]

    def step(self, insn: Instruction, state: _State) -> _State:
        # The site's own pushes lie there: their place is known by counting pushes alone.
        if insn.moves_stack:
            self.refuse(f"{insn.text}: it moves the stack pointer")
        if any(name.startswith(_FLOATING) for name in insn.others):
            # Its state is the process's, which the kernel has not saved.
            self.refuse(f"{insn.text}: kernel code may not use floating-point registers")
        self.check_memory(insn, state)
        match insn.mnemonic:
            case "push" | "pushfd" | "pushfq":
                return attrs.evolve(state, stack=(*state.stack, self.pushed(insn, state)))
            case "cli" | "sti":
                return state.put(_INTERRUPT_FLAG, _MADE)
            case "pop" | "popfd" | "popfq":
                return self.pop(insn, state)
        if insn.copies:
            return state.put(insn.copies[0], state.registers[insn.copies[1]])
        # xor and sub of a register with itself read it in letter only.
        zeroing = insn.mnemonic in {"xor", "sub"} and len(insn.reads) == 1 and insn.reads == insn.writes
        if not (zeroing and not insn.memory and _same_operands(insn)):
            self.check_reads(insn, state)
        return self.written(insn, state)

    def written(self, insn: Instruction, state: _State) -> _State:
        lost = insn.writes
        # A C function keeps what its callers rely on, and no more (the ABI's caller-saved registers).
        if insn.flow is Flow.CALL and insn.target not in self.rules.keeping:
            lost |= CALLER_SAVED[self.bits]
        return attrs.evolve(state, registers={**state.registers, **dict.fromkeys(lost, _MADE)})

    def pushed(self, insn: Instruction, state: _State) -> str:
        if insn.operand:
            return state.registers[insn.operand]
        self.check_reads(insn, state)
        # Flags pushed before anything has changed IF bring back just that.
        saves_flags = insn.mnemonic != "push" and state.registers[_INTERRUPT_FLAG] == _INTERRUPT_FLAG
        return _FLAGS if saves_flags else _MADE

    def pop(self, insn: Instruction, state: _State) -> _State:
        if not state.stack:
            self.refuse(f"{insn.text}: it pops what it did not push")
        token = state.stack[-1]
        after = attrs.evolve(state, stack=state.stack[:-1])
        if insn.mnemonic != "pop":
            self.check_token(insn, token)
            return after.put(_INTERRUPT_FLAG, _INTERRUPT_FLAG if token == _FLAGS else _MADE)
        if insn.operand is None:
            self.refuse(f"{insn.text}: it pops into something other than a general register")
        return after.put(insn.operand, token)

    def check_memory(self, insn: Instruction, state: _State) -> None:
        for memory in insn.memory:
            if not memory.written:
                continue
            # A number that a place was filled with: the code says by name what it writes.
            if memory.base is None and memory.index is None and memory.address in self.rules.places:
                continue
            base = state.registers.get(memory.base) if memory.base else None
            # A pointer that an argument brought, not to const: what the op is for.
            if base in self.writable and memory.index is None and memory.segment is None:
                continue
            self.refuse(f"{insn.text}: it writes memory that is neither a place nor behind a pointer argument")

    def check_reads(self, insn: Instruction, state: _State) -> None:
        for register in sorted(insn.reads):
            self.check_token(insn, state.registers[register])

    def check_token(self, insn: Instruction, token: str) -> None:
        if token not in self.rules.arguments and token not in {_MADE, _FLAGS}:
            self.refuse(f"{insn.text}: it uses {token}, which holds no argument")

    def check_kept(self, state: _State) -> None:
        if state.stack:
            self.refuse(f"it leaves {len(state.stack)} words on the stack")
        # What the code may write is said by the site's clobber word and the op's convention.
        for register in _GENERAL[self.bits]:
            if state.registers[register] != register and register not in self.rules.may_write:
                self.refuse(f"it destroys {register}, which the site keeps")
        # Others that leave IF changed would break code that runs with interrupts off (``irq_disable`` and its like).
        may_change = self.jumped_to or self.rules.signature.op.name in _MAY_CHANGE_INTERRUPT_FLAG
        if state.registers[_INTERRUPT_FLAG] != _INTERRUPT_FLAG and not may_change:
            self.refuse("it leaves the interrupt flag changed, which is not this op's business")

    def finish(self, state: _State) -> None:
        if self.jumped_to:
            self.refuse("it runs off its end, but the op is jumped to and must not come back")
        self.check_kept(state)
        for register in self.rules.signature.result:
            # A result that is what was there before is an accident.
            token = state.registers[register]
            if token not in self.rules.arguments and token not in {_MADE, _FLAGS}:
                self.refuse(f"it leaves {token} as the result in {register}, which holds no argument")


def _same_operands(insn: Instruction) -> bool:
    first, _, second = insn.text.partition(" ")[2].partition(", ")
    return first == second

"""What is called in a guest, with arguments where its calling convention wants them, and its result."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, SupportsIndex

import attrs

from pvops_core.errors import UsageError
from pvops_core.ops.abi import ARGUMENTS, CALLER_SAVED, RESULT

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.ops import Signature


@attrs.frozen
class Callee:
    """What is called, and with what.

    Attributes:
        what: its name, for people.
        address: guest-virtual address of its first instruction.
        registers: its arguments in registers, by name.
        stack: its arguments on the stack, lowest address first.
        how: the op's signature; None for a C function, whose result is a register.
    """

    what: str
    address: int
    registers: Mapping[str, int]
    stack: Sequence[int] = ()
    how: Signature | None = None

    @classmethod
    def function(cls, what: str, address: int, bits: int, *arguments: int) -> Callee:
        """A C function of the kernel's, with words as arguments (System V; on i386 ``regparm(3)``)."""
        # Negative numbers are words, too.
        words = [argument & (1 << bits) - 1 for argument in arguments]
        names = ARGUMENTS[bits]
        # System V: what finds no register goes on the stack.
        return cls(what, address, dict(zip(names, words, strict=False)), words[len(names) :])

    @classmethod
    def op(cls, how: Signature, address: int, *arguments: int) -> Callee:
        """The function that an op's slot holds, with arguments as in the C prototype.

        Those left out are 0, and a HookDeprecationWarning: it goes with API 3.

        Raises:
            UsageError: it takes fewer arguments, or one is no whole number.
        """
        name, bits = how.op.name, how.kind.bits
        for at, value in enumerate(arguments, 1):
            if not isinstance(value, SupportsIndex):
                raise UsageError(f"{name}: argument {at} is {value!r}, which is no whole number")
        # Before API 3 arguments may be left out.
        if len(arguments) != len(how.places):
            names = ", ".join(place.name for place in how.places)
            taken = f"{len(how.places)} argument{'s' * (len(how.places) > 1)} ({names})" if names else "no argument"
            said = f"{name} takes {taken}; {len(arguments)} {'is' if len(arguments) == 1 else 'are'} given"
            if len(arguments) > len(how.places):
                raise UsageError(said)
            _warn(said)
            arguments += (0,) * (len(how.places) - len(arguments))
        registers: dict[str, int] = {}
        stack: list[int] = []
        for place, value in zip(how.places, arguments, strict=True):
            # A 64-bit argument of i386 is two words, the low one first.
            words = [value >> shift & (1 << bits) - 1 for shift in range(0, place.bits, bits)]
            if place.registers:
                registers |= dict(zip(place.registers, words, strict=True))
            else:
                stack += words
        return cls(name, address, registers, stack, how)

    def lost(self, bits: int) -> frozenset[str]:
        """Registers that it may destroy, those of its result among them."""
        return self.how.clobbers | set(self.how.result) if self.how else frozenset(CALLER_SAVED[bits])

    def result(self, cpu: Vcpu) -> int:
        """Its result, unsigned, where a vCPU has just returned from it."""
        bits = cpu.machine.kind.bits
        if self.how is None:
            return cpu.get(RESULT[bits][0])
        # edx:eax for 64 bits on i386.
        value = sum(cpu.get(name) << number * bits for number, name in enumerate(self.how.result))
        return value & (1 << self.how.result_bits) - 1


def _warn(said: str) -> None:
    from pvops_core.hookspecs.markers import HookDeprecationWarning  # noqa: PLC0415 - brings pluggy

    message = f"{said}, and those left out are 0; with API 3 that is an error: give all of them"
    warnings.warn(message, HookDeprecationWarning, stacklevel=5)

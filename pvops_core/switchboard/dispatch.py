"""From a gate to a Python callable and back: the hot path of a hook call.

Everything that can be known before the call (which registers hold which argument, where the result goes) is worked out
once per implementation; a call reads its registers in one batch and writes its result in one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pvops_core.guest.own import OwnFunction
from pvops_core.machine import GuestFault, Reschedule, Vcpu

if TYPE_CHECKING:
    from pvops_core.machine import Machine
    from pvops_core.ops import Place, Signature
    from pvops_core.switchboard.implementations import Implementation
    from pvops_core.switchboard.mishaps import Mishaps

Reader = Callable[[Vcpu], Sequence[int]]
Writer = Callable[[Vcpu, int | None], None]
Handler = Callable[[Vcpu], None]


def reader(machine: Machine, signature: Signature, arguments: Sequence[str]) -> Reader:
    """A function that gives an implementation's arguments, in the order it names them.

    An argument that this layout's op has in no shape is 0: hook specifications join the prototypes of all years.
    """
    places = {place.name: place for place in (*signature.places, *signature.views)}
    wanted = [places[name] for name in arguments if name in places]
    if not arguments:
        return _nothing
    if len(wanted) < len(arguments) or any(len(place.registers) != 1 for place in wanted):
        return _anywhere(machine, signature, arguments)
    return _in_registers(machine, signature, wanted)


def _nothing(_vcpu: Vcpu) -> Sequence[int]:
    return ()


def _in_registers(machine: Machine, signature: Signature, wanted: Sequence[Place]) -> Reader:
    """Every argument in one register: those registers are read and no others."""
    reads = [vcpu.batch(*(place.registers[0] for place in wanted)).read for vcpu in machine.vcpus]
    bits = signature.kind.bits

    def read(vcpu: Vcpu) -> Sequence[int]:
        return reads[vcpu.index]()

    def read_and_cut(vcpu: Vcpu) -> Sequence[int]:
        return [place.value((word,), bits) for place, word in zip(wanted, reads[vcpu.index](), strict=True)]

    whole = all(place.bits == bits and not place.signed for place in wanted)
    return read if whole else read_and_cut


def _anywhere(machine: Machine, signature: Signature, arguments: Sequence[str]) -> Reader:
    """Arguments of two words, on the stack, or not there at all."""
    batches = [vcpu.batch(*signature.registers) for vcpu in machine.vcpus]
    order = {place.name: number for number, place in enumerate((*signature.places, *signature.views))}
    picks = [order.get(name, -1) for name in arguments]
    size = signature.kind.pointer_size
    words = signature.stack_words

    def read(vcpu: Vcpu) -> Sequence[int]:
        above_return = vcpu.rsp + size
        stack = [vcpu.word(above_return + number * size) for number in range(words)] if words else ()
        values = (*signature.arguments_and_views(batches[vcpu.index].read(), stack), 0)
        return [values[pick] for pick in picks]

    return read


def writer(machine: Machine, signature: Signature) -> Writer | None:
    """A function that puts a result where the caller looks for it; None for a void function."""
    if not signature.result:
        return None
    writes = [vcpu.batch(*signature.result).write for vcpu in machine.vcpus]
    mask = (1 << signature.result_bits) - 1

    def write(vcpu: Vcpu, value: int | None) -> None:
        writes[vcpu.index]((value or 0) & mask)

    def write_words(vcpu: Vcpu, value: int | None) -> None:
        writes[vcpu.index](*signature.results(value or 0))

    return write if len(signature.result) == 1 else write_words


def _conclude(write: Writer | None, answered: Callable[[Vcpu], None] | None) -> Writer | None:
    """What is done with what an implementation returned; decided here, so that a call looks at it but once."""
    if answered is None:
        return write

    def conclude(vcpu: Vcpu, result: int | None) -> None:
        if result is not None:
            if write is not None:
                write(vcpu, result)
            answered(vcpu)

    return conclude


def handler(
    machine: Machine,
    signature: Signature,
    implementation: Implementation,
    calls: Counter[str],
    mishaps: Mishaps,
    answered: Callable[[Vcpu], None] | None = None,
    own: Callable[[Vcpu, str], None] | None = None,
) -> Handler:
    """The gate handler of an implementation.

    Args:
        machine: its machine.
        signature: how the guest calls the op.
        implementation: a function.
        calls: counts calls by op.
        mishaps: deals with what the implementation runs into.
        answered: of one that may leave the call to what it stands in front of by a result of None: what happens when
            it has answered.
        own: sends a call on to the guest's own function, given the implementation's reason, where there is one.
    """
    op = implementation.op
    function = implementation.function
    read = reader(machine, signature, implementation.arguments)
    conclude = _conclude(writer(machine, signature), answered)

    def serve(vcpu: Vcpu) -> None:
        calls[op] += 1
        try:
            result = function(vcpu, *read(vcpu))  # type: ignore[misc]  # a function implementation has one
            if conclude is not None:
                conclude(vcpu, result)
        except GuestFault as guest_fault:
            mishaps.fault(implementation, vcpu, guest_fault)
        except Reschedule:
            calls[op] -= 1
            raise
        except OwnFunction as wish:
            if own is None:
                mishaps.let_out(implementation, signature.op, vcpu, wish)
            own(vcpu, wish.reason)
        except BaseException as error:  # noqa: BLE001  whatever somebody's code raises: exits and interrupts too
            mishaps.let_out(implementation, signature.op, vcpu, error)

    return serve

"""From a gate to a Python callable and back: the hot path of a hook call.

Everything that can be known before the call (which registers hold which argument, where the result goes) is worked out
once per implementation; a call reads its registers in one batch and writes its result in one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pvops_core.child.marks import marks
from pvops_core.guest.own import OwnFunction
from pvops_core.machine import GuestFault, Reschedule, Vcpu
from pvops_core.switchboard.hookfaults import told_of

if TYPE_CHECKING:
    from pvops_core.machine import Machine
    from pvops_core.ops import Place, Signature
    from pvops_core.switchboard.hookfaults import HookFaults
    from pvops_core.switchboard.implementation import Implementation

Reader = Callable[[Vcpu], Sequence[int]]
Writer = Callable[[Vcpu, int | None], None]
Handler = Callable[[Vcpu], None]


def reader(machine: Machine, signature: Signature, arguments: Sequence[str]) -> Reader:
    """A function that gives an implementation's arguments, in the order it names them."""
    reads = _reads(machine, signature, arguments)
    return lambda vcpu: reads[vcpu.index]()


def _reads(machine: Machine, signature: Signature, arguments: Sequence[str]) -> list[Callable[[], Sequence[int]]]:
    """The same of each vCPU.

    An argument that this layout's op has in no shape is 0: hook specifications join the prototypes of all years.
    """
    places = {place.name: place for place in (*signature.places, *signature.views)}
    wanted = [places[name] for name in arguments if name in places]
    if not arguments:
        # No arguments, no registers: a call reads nothing.
        return [tuple for _ in machine.vcpus]
    # Two words, or one on the stack, need the slow way; most ops have one word in one register each.
    if len(wanted) < len(arguments) or any(len(place.registers) != 1 for place in wanted):
        read = _anywhere(machine, signature, arguments)
        return [partial(read, vcpu) for vcpu in machine.vcpus]
    return _in_registers(machine, signature, wanted)


def _in_registers(machine: Machine, signature: Signature, wanted: Sequence[Place]) -> list[Callable[[], Sequence[int]]]:
    """Every argument in one register: those registers are read and no others."""
    reads = [vcpu.batch(*(place.registers[0] for place in wanted)).read for vcpu in machine.vcpus]
    bits = signature.kind.bits

    def cut(read: Callable[[], Sequence[int]]) -> Sequence[int]:
        return [place.value((word,), bits) for place, word in zip(wanted, read(), strict=True)]

    # Whole registers need no cutting: the batch's read is the reader.
    if all(place.bits == bits and not place.signed for place in wanted):
        return [*reads]
    return [partial(cut, read) for read in reads]


def _anywhere(machine: Machine, signature: Signature, arguments: Sequence[str]) -> Reader:
    """Arguments of two words, on the stack, or not there at all."""
    batches = [vcpu.batch(*signature.registers) for vcpu in machine.vcpus]
    order = {place.name: number for number, place in enumerate((*signature.places, *signature.views))}
    picks = [order.get(name, -1) for name in arguments]
    size = signature.kind.pointer_size
    words = signature.stack_words

    def read(vcpu: Vcpu) -> Sequence[int]:
        above_return = vcpu.rsp + size  # the caller's return address lies below them
        stack = [vcpu.word(above_return + number * size) for number in range(words)] if words else ()
        values = (*signature.arguments_and_views(batches[vcpu.index].read(), stack), 0)
        return [values[pick] for pick in picks]

    return read


def writer(machine: Machine, signature: Signature) -> Writer | None:
    """A function that puts a result where the caller looks for it; None for a void function."""
    if not signature.result:
        return None
    batches = [vcpu.batch(*signature.result) for vcpu in machine.vcpus]
    mask = (1 << signature.result_bits) - 1

    def put(vcpu: Vcpu, value: int | None) -> None:
        batches[vcpu.index].put((value or 0) & mask)

    def write_words(vcpu: Vcpu, value: int | None) -> None:
        batches[vcpu.index].write(*signature.results(value or 0))

    return put if len(signature.result) == 1 else write_words


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
    faults: HookFaults,
    answered: Callable[[Vcpu], None] | None = None,
    own: Callable[[Vcpu, str], None] | None = None,
) -> Handler:
    """The gate handler of an implementation.

    Args:
        machine: its machine.
        signature: how the guest calls the op.
        implementation: a function.
        calls: counts calls by op.
        faults: deals with what the implementation runs into.
        answered: of one that may leave the call to what it stands in front of by a result of None: what happens when
            it has answered.
        own: sends a call on to the guest's own function, given the implementation's reason, where there is one.
    """
    op = implementation.op
    function = implementation.function
    reads = _reads(machine, signature, implementation.arguments)
    conclude = _conclude(writer(machine, signature), answered)
    under_way, mark = marks().bytes, marks().number(told_of(implementation))

    def serve(vcpu: Vcpu) -> None:
        calls[op] += 1
        index = vcpu.index
        under_way[mark] = index + 1
        try:
            result = function(vcpu, *reads[index]())  # type: ignore[misc]  # a function implementation has one
            if conclude is not None:
                conclude(vcpu, result)
        except GuestFault as guest_fault:
            faults.fault(implementation, vcpu, guest_fault)
        except Reschedule:
            # Called again, with all as it was, so it must not count twice.
            calls[op] -= 1
            raise
        except OwnFunction as wish:
            if own is None:
                # A hook that answers with the kernel's own function is no hook in front of it: nobody can go on.
                faults.let_out(implementation, signature.op, vcpu, wish)
            own(vcpu, wish.reason)
        except BaseException as error:  # noqa: BLE001  whatever somebody's code raises: exits and interrupts too
            faults.let_out(implementation, signature.op, vcpu, error)
        finally:
            under_way[mark] = 0

    return serve

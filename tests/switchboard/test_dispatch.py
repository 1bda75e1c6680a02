"""Arguments and results of every op of every layout, as wide and as signed as their C types, wherever they lie."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from pvops_core.backends import load_backends
from pvops_core.guests import LAYOUTS
from pvops_core.machine import Machine
from pvops_core.ops import LAYOUTS as TABLES
from pvops_core.ops import Convention, signature
from pvops_core.session import Session
from pvops_core.switchboard.dispatch import writer
from pvops_core.testing.call import Caller
from pvops_core.testing.points import run_to

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.ops import Slot


@pytest.fixture(scope="module", params=LAYOUTS)
def call(request: pytest.FixtureRequest) -> Iterator[Caller]:
    backends = load_backends().backends
    with Session.of_builtin(request.param, "native", backends=backends, memory=4 << 20) as session:
        run_to(session, "patched")
        yield Caller(session)


def _slots(layout: str) -> list[Slot]:
    table = TABLES[layout]
    shapes = (Convention.NONE, Convention.JUMP)
    return [slot for slot in table.slots if slot.op.convention not in shapes and slot.op.name != "patch"]


def _probe(names: list[str], seen: list[tuple[int, ...]], result: int) -> Any:  # noqa: ANN401 - made to measure
    def probe(_cpu: Vcpu, *values: int) -> int:
        seen.append(values)
        return result

    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("cpu", *names)]
    probe.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return probe


def _cut(value: int, bits: int, *, signed: bool) -> int:
    cut = value & (1 << bits) - 1
    return cut - (1 << bits) if signed and cut >> bits - 1 else cut


@pytest.mark.parametrize("fill", [-1, 0x0123456789ABCDEF])
@pytest.mark.parametrize("order", ["all", "backwards", "one of them and one that is not there"])
def test_arguments_and_result_are_their_types(call: Caller, fill: int, order: str) -> None:
    session = call.session
    kind, layout = session.guest.kind, session.layout
    for slot in _slots(layout.name):
        arguments = {arg.name: arg for arg in slot.op.args}
        names = list(arguments)
        if order == "backwards":
            names.reverse()
        elif order != "all":
            names = [*names[-1:], "absent"]
        given = [fill + number for number in range(len(arguments))]
        seen: list[tuple[int, ...]] = []
        first = session.switchboard.implementation(slot.op.name)
        session.switchboard.switch(slot.op.name, _probe(names, seen, fill), by="test")
        done = call(slot.op.name, *given)
        session.switchboard.switch(slot.op.name, first, by="test")
        wanted = []
        for name in names:
            if name not in arguments:
                wanted.append(0)
                continue
            ctype = arguments[name].ctype
            bits = arguments[name].bits(kind)
            wanted.append(_cut(given[list(arguments).index(name)], bits, signed=ctype.signed and not ctype.pointer))
        assert seen == [tuple(wanted)], slot.op.prototype
        if slot.op.result is not None:
            assert done.result == fill & (1 << slot.op.result.bits(kind)) - 1, slot.op.prototype


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("value", [-1, 0x0123456789ABCDEF, 0, None])
def test_a_result_fills_its_registers_and_nothing_of_it_is_beyond_its_type(layout: str, value: int | None) -> None:
    kind = TABLES[layout].kind
    with Machine(kind, memory=1 << 20) as machine:
        for slot in _slots(layout):
            signed = signature(slot.op, kind)
            write = writer(machine, signed)
            if write is None:
                assert slot.op.result is None
                continue
            registers = machine.vcpus[0].batch(*signed.result)
            registers.write(*[0x5A5A5A5A] * len(signed.result))
            write(machine.vcpus[0], value)
            low, *high = registers.read()
            got = low | (high[0] << 32 if high else 0)
            assert got == (value or 0) & (1 << slot.op.result.bits(kind)) - 1, slot.op.prototype  # type: ignore[union-attr]

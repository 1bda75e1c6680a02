"""Named points and booting to a symbol, on small kernels whose functions bear the names of Linux's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import MachineError, UsageError
from pvops_core.guests import Kernel
from pvops_core.images import load_image
from pvops_core.session import Session
from pvops_core.testing.images import ElfBuilder

if TYPE_CHECKING:
    from pvops_core.backends import Backend

OFF = "66ba0406 66b80020 66ef f4"
STACK = {64: "bc00002001", 32: "bc00002001"}  # mov esp, 0x1200000
CALL_TWICE = "e8 1b000000 e8 16000000"  # to 0x20 bytes after the first call's beginning
Boot = Callable[..., Session]


@pytest.fixture
def boot(backends: dict[str, Backend]) -> Iterator[Boot]:
    """A kernel that calls alternative_instructions twice and powers off in machine_halt."""
    with ExitStack() as stack:

        def make(bits: int = 64, **settings: object) -> Session:
            builder = ElfBuilder(bits, 0x1000000)
            start = bytes.fromhex(STACK[bits] + CALL_TWICE + OFF).ljust(0x25, b"\x90")
            base = builder.text(".text", start + b"\xc3")
            for name, offset in (("start_kernel", 0), ("alternative_instructions", 0x25), ("machine_halt", 15)):
                builder.symbol(name, base + offset)
            kernel = Kernel(load_image(builder.build()))
            return stack.enter_context(Session(kernel, (backends["native"],), memory=32 << 20, **settings))  # type: ignore[arg-type]

        yield make


@pytest.mark.parametrize("bits", [64, 32])
def test_points_are_noted_once_in_order(boot: Boot, bits: int) -> None:
    session = boot(bits)
    assert session.run().reason == "poweroff"
    passed = list(session.points.passed.values())
    assert [point.name for point in passed] == ["start_kernel", "alternatives", "patched", "power-off"]
    base = passed[0].address
    assert [point.address - base for point in passed] == [0, 0x25, 10, 15]
    assert [point.ns for point in passed] == sorted(point.ns for point in passed)
    assert [event.fields for event in session.machine.log.events if event.kind == "point"] == [
        (("name", point.name),) for point in passed
    ]


@pytest.mark.parametrize("bits", [64, 32])
def test_a_run_to_a_symbol_stops_before_it_and_goes_on(boot: Boot, bits: int) -> None:
    session = boot(bits)
    base = session.kernel.image.symbols["start_kernel"]
    for returned_to in (10, 15):
        vcpu = session.run_to("alternative_instructions")
        assert vcpu.rip == base + 0x25
        assert vcpu.word(vcpu.rsp) == base + returned_to
    with pytest.raises(MachineError, match="did not come to alternative_instructions: poweroff"):
        session.run_to("alternative_instructions")


def test_a_run_to_a_point_that_is_a_return(boot: Boot) -> None:
    session = boot()
    assert session.run_to("patched").rip == session.kernel.image.symbols["start_kernel"] + 10
    with pytest.raises(UsageError, match="has come by patched before"):
        session.run_to("patched")
    assert session.run().reason == "poweroff"


def test_a_session_can_be_made_to_stop_at_a_place(boot: Boot) -> None:
    stop = boot(stop_at="machine_halt").run()
    assert (stop.reason, stop.detail) == ("until", "vcpu 0 came to machine_halt")
    assert boot(stop_at="power-off").run().detail == "vcpu 0 came to power-off"


def test_an_unknown_symbol_is_refused_with_a_guess(boot: Boot) -> None:
    with pytest.raises(UsageError, match=r"no symbol 'start_kernal' \(did you mean start_kernel\?\)"):
        boot(stop_at="start_kernal")
    with pytest.raises(UsageError, match="no symbol 'xen_write_cr3'"):
        boot().run_to("xen_write_cr3")


def test_snapshots_know_what_has_been_passed(boot: Boot) -> None:
    session = boot()
    session.run_to("alternatives")
    snapshot = session.machine.snapshot()
    session.run()
    session.machine.restore(snapshot)
    assert list(session.points.passed) == ["start_kernel", "alternatives"]
    session.run()
    assert list(session.points.passed) == ["start_kernel", "alternatives", "patched", "power-off"]

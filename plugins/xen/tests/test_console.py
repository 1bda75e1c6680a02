"""The console: its page, what is typed, and indices that lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pvops_xen.hypervisor.console import IN, OUT, Console

from pvops_core.machine.memory import PhysicalMemory

if TYPE_CHECKING:
    from pvops_xen.hypervisor.ring import Ring

PAGE = 4096


@pytest.fixture
def memory() -> PhysicalMemory:
    return PhysicalMemory(1 << 16)


@pytest.mark.parametrize("start", [0, 2000, (1 << 32) - 3])
def test_what_is_printed_is_taken_and_what_is_typed_given(memory: PhysicalMemory, start: int) -> None:
    printed = bytearray()
    console = Console(printed.extend, page=PAGE)
    for ring in (IN, OUT):
        memory.set_u32(PAGE + ring.consumer, start)
        memory.set_u32(PAGE + ring.producer, start)
    assert not console.exchange(memory)
    assert OUT.put(memory, PAGE, b"hello") == 5
    assert console.exchange(memory)
    assert printed == b"hello"
    console.typed = bytes(range(256)) * 6
    assert console.exchange(memory)
    taken = IN.take(memory, PAGE)
    assert console.exchange(memory)
    assert taken + IN.take(memory, PAGE) == bytes(range(256)) * 6
    assert not console.exchange(memory)


@pytest.mark.parametrize(("ring", "most"), [(IN, 1024), (OUT, 2048)])
def test_indices_that_lie_are_named_and_nothing_is_taken(memory: PhysicalMemory, ring: Ring, most: int) -> None:
    said: list[str] = []
    console = Console(lambda text: pytest.fail(f"printed {text!r}"), page=PAGE, typed=b"x", log=said.append)
    memory.set_u32(PAGE + ring.producer, most + 1)
    assert not console.exchange(memory)
    assert said == [f"console ring: 0x0 to {most + 1:#x} is more than the {most} bytes of a ring"]
    assert console.typed == b"x"


def test_a_console_without_a_page(memory: PhysicalMemory) -> None:
    console = Console(bytearray().extend)
    console.typed = b"typed"
    assert not console.exchange(memory)
    assert (console.read(3), console.read(9)) == (b"typ", b"ed")

"""The console: its page, what is typed, and indices that lie."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from pvops_xen.hypervisor.console import IN, OUT, XenConsole
from pvops_xen.platform import XenPlatform
from pvops_xen.testing.guests import EVENT, SmallGuest

from pvops_core.errors import UsageError
from pvops_core.machine.memory import PhysicalMemory

if TYPE_CHECKING:
    from pvops_xen.hypervisor.ring import ByteRing

PAGE = 4096


@pytest.fixture
def memory() -> PhysicalMemory:
    return PhysicalMemory(1 << 16)


@pytest.mark.parametrize("start", [0, 2000, (1 << 32) - 3])
def test_what_is_printed_is_taken_and_what_is_typed_given(memory: PhysicalMemory, start: int) -> None:
    printed = bytearray()
    console = XenConsole(printed.extend, page=PAGE)
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
def test_indices_that_lie_are_named_and_nothing_is_taken(memory: PhysicalMemory, ring: ByteRing, most: int) -> None:
    said: list[str] = []
    console = XenConsole(lambda text: pytest.fail(f"printed {text!r}"), page=PAGE, typed=b"x", log=said.append)
    memory.set_u32(PAGE + ring.producer, most + 1)
    assert not console.exchange(memory)
    assert said == [f"console ring: 0x0 to {most + 1:#x} is more than the {most} bytes of a ring"]
    assert console.typed == b"x"


def test_a_console_without_a_page(memory: PhysicalMemory) -> None:
    console = XenConsole(bytearray().extend)
    console.typed = b"typed"
    assert not console.exchange(memory)
    assert (console.read(3), console.read(9)) == (b"typ", b"ed")


BLOCK = {64: "mov eax, 29\n mov edi, 1\n syscall", 32: "mov eax, 29\n mov ebx, 1\n int 0x82"}


@pytest.fixture(params=[64, 32])
def guest(request: pytest.FixtureRequest) -> Iterator[SmallGuest]:
    with SmallGuest(request.param) as guest:
        yield guest


def typing_soon(guest: SmallGuest, *acts: Callable[[], None]) -> None:
    for number, act in enumerate(acts):
        threading.Timer(0.1 * (number + 1), act).start()
    guest.session.platform.keyboard.listen()


def test_a_key_wakes_a_guest_that_sleeps_without_a_timer(guest: SmallGuest) -> None:
    keyboard = guest.session.platform.keyboard
    typing_soon(guest, lambda: keyboard.type(b"k"))
    outcome = guest.execute(BLOCK[guest.bits])
    assert (outcome.kind, outcome.vector) == ("trap", EVENT)
    assert IN.take(guest.hv.memory, guest.hv.console.page) == b"k"
    assert [event.fields for event in guest.session.machine.log.events if event.kind == "typed"] == [(("data", b"k"),)]


def test_a_key_that_wakes_nobody_is_no_error(guest: SmallGuest) -> None:
    keyboard, hv = guest.session.platform.keyboard, guest.hv
    hv.memory.set_u8(hv.domain.shared_info + hv.abi.evtchn_mask, 0xFF)
    typing_soon(guest, lambda: keyboard.type(b"k"), keyboard.end)
    outcome = guest.execute(BLOCK[guest.bits])
    assert outcome.kind == "dead"


def test_only_words_that_a_toolstack_knows_ask_for_an_end(guest: SmallGuest) -> None:
    platform = guest.session.platform
    assert isinstance(platform, XenPlatform)
    with pytest.raises(UsageError, match="'sleep'"):
        platform.request_shutdown("sleep")
    platform.request_shutdown("halt")
    node = guest.hv.store.daemon.tree.get("/local/domain/1/control/shutdown")
    assert node is not None
    assert node.value == b"halt"


def test_a_toolstack_asks_at_the_time_that_was_said(guest: SmallGuest) -> None:
    """Though no timer of the guest is due then."""
    guest.hv.domain.asked = ("reboot", guest.session.machine.clock.ns + 1_000_000)
    daemon = guest.hv.store.daemon
    outcome = guest.execute(BLOCK[guest.bits])
    node = daemon.tree.get("/local/domain/1/control/shutdown")
    assert node is not None
    assert (outcome.kind, node.value, guest.hv.domain.asked) == ("dead", b"reboot", None)

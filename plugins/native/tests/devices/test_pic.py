from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from pvops_native.devices.pic import PicPair


def initialised(*, auto_eoi: bool = False) -> PicPair:
    pic = PicPair()
    for port, vector, wiring in ((0x20, 0x20, 4), (0xA0, 0x28, 2)):
        pic.write(port, 0x11)
        pic.write(port + 1, vector)
        pic.write(port + 1, wiring)
        pic.write(port + 1, 3 if auto_eoi else 1)
    return pic


def test_nothing_interrupts_before_initialisation() -> None:
    pic = PicPair()
    for irq in range(16):
        pic.pulse(irq)
    assert not pic.interrupting()


def test_vectors_and_priorities() -> None:
    pic = initialised()
    for irq in (15, 7, 9, 0, 3):
        pic.pulse(irq)
    order = []
    while pic.interrupting():
        vector = pic.acknowledge()
        order.append(vector)
        if vector >= 0x28:
            pic.write(0xA0, 0x20)
        pic.write(0x20, 0x20)
    assert order == [0x20, 0x29, 0x2F, 0x23, 0x27]


def test_lower_priority_waits_for_end_of_interrupt() -> None:
    pic = initialised()
    pic.pulse(3)
    assert pic.acknowledge() == 0x23
    pic.pulse(4)
    assert not pic.interrupting()
    pic.pulse(1)
    assert pic.acknowledge() == 0x21
    pic.write(0x20, 0x20)  # ends 1, the highest in service
    assert not pic.interrupting()
    pic.write(0x20, 0x60 | 3)  # specific
    assert pic.acknowledge() == 0x24


def test_masked_line_waits_in_the_request_register() -> None:
    pic = initialised()
    pic.write(0x21, 0xFE)
    pic.pulse(1)
    assert not pic.interrupting()
    pic.write(0x20, 0x0A)
    assert pic.read(0x20) == 2
    pic.write(0x21, 0)
    assert pic.acknowledge() == 0x21
    pic.write(0x20, 0x0B)
    assert pic.read(0x20) == 2


def test_spurious_interrupt_is_line_7_and_not_in_service() -> None:
    pic = initialised()
    assert pic.acknowledge() == 0x27
    pic.write(0x20, 0x0B)
    assert pic.read(0x20) == 0


def test_edge_is_latched_once_and_level_followed() -> None:
    pic = initialised()
    pic.set_line(5, level=True)
    pic.acknowledge()
    pic.write(0x20, 0x20)
    pic.set_line(5, level=True)
    assert not pic.interrupting()
    pic.write(0x4D1, 0x02)  # request 9 by level
    assert pic.read(0x4D1) == 2
    pic.set_line(9, level=True)
    assert pic.acknowledge() == 0x29
    pic.write(0xA0, 0x20)
    pic.write(0x20, 0x20)
    assert pic.interrupting()
    pic.set_line(9, level=False)
    assert not pic.interrupting()


def test_rotation_and_set_priority() -> None:
    pic = initialised()
    pic.pulse(0)
    pic.acknowledge()
    pic.write(0x20, 0xA0)  # end, and 0 becomes the lowest
    pic.pulse(0)
    pic.pulse(1)
    assert pic.acknowledge() == 0x21
    pic.write(0x20, 0x20)
    pic.write(0x20, 0xC0 | 7)
    assert pic.acknowledge() == 0x20


def test_auto_end_of_interrupt_leaves_nothing_in_service() -> None:
    pic = initialised(auto_eoi=True)
    pic.pulse(2 + 8)
    assert pic.acknowledge() == 0x2A
    pic.pulse(10)
    assert pic.acknowledge() == 0x2A


def test_poll_acknowledges() -> None:
    pic = initialised()
    pic.pulse(6)
    pic.write(0x20, 0x0C)
    assert pic.read(0x20) == 0x86
    assert not pic.interrupting()
    pic.write(0x20, 0x0C)
    assert pic.read(0x20) == 0


@settings(max_examples=60, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(["pulse", "mask", "serve"]), st.integers(0, 15)), max_size=40))
def test_what_is_served_was_requested_unmasked_and_is_the_best(script: list[tuple[str, int]]) -> None:
    """Against the plainest model: a set of requests, a mask, every interrupt ended at once."""
    rank = {irq: n for n, irq in enumerate((0, 1, *range(8, 16), 3, 4, 5, 6, 7))}
    pic, requests, mask = initialised(), set[int](), set[int]()
    for what, irq in script:
        if what == "pulse" and irq != 2:
            pic.pulse(irq)
            requests.add(irq)
        elif what == "mask" and irq != 2:
            mask ^= {irq}
            pic.write(0x21, sum(1 << n for n in mask if n < 8))
            pic.write(0xA1, sum(1 << n - 8 for n in mask if n >= 8))
        elif what == "serve":
            ready = sorted(requests - mask, key=rank.__getitem__)
            assert pic.interrupting() == bool(ready)
            if ready:
                assert pic.acknowledge() == 0x20 + ready[0]
                requests.discard(ready[0])
                if ready[0] >= 8:
                    pic.write(0xA0, 0x20)
                pic.write(0x20, 0x20)

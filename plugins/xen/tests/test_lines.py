"""Two outputs shown as one: what comes on both is shown once, whatever comes first and in whatever pieces."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pvops_xen import backend
from pvops_xen.hypervisor.console import HYPERCALL, OUT, RING, XenConsole
from pvops_xen.hypervisor.lines import MergedLines
from pvops_xen.testing.guests import SmallGuest, image

from pvops_core.errors import UsageError
from pvops_core.guests import Kernel
from pvops_core.images import load_image
from pvops_core.machine.memory import PhysicalMemory
from pvops_core.session import Session

LINES = st.lists(st.sampled_from([b"one", b"two", b"", b"one and more", b"[    0.1] boot"]), max_size=12)


def merged() -> tuple[bytearray, MergedLines]:
    shown = bytearray()
    return shown, MergedLines(shown.extend)


@given(lines=LINES, cuts=st.lists(st.integers(0, 200), max_size=6), late=st.booleans(), first=st.sampled_from([0, 1]))
def test_all_on_both_is_shown_once(lines: list[bytes], cuts: list[int], *, late: bool, first: int) -> None:
    shown, both = merged()
    ends = (b"\n", b"\r\n")
    whole = b"".join(line + ends[first] for line in lines)
    if late:
        both.write(first, whole)
        second = b"".join(line + ends[1 - first] for line in lines)
        places = sorted({0, len(second), *(min(cut, len(second)) for cut in cuts)})
        for start, end in itertools.pairwise(places):
            both.write(1 - first, second[start:end])
    else:
        for line in lines:
            both.write(first, line + ends[first])
            both.write(1 - first, line + ends[1 - first])
    assert bytes(shown) == whole


@given(lines=LINES)
def test_what_comes_on_one_alone_is_all_shown(lines: list[bytes]) -> None:
    shown, both = merged()
    whole = b"".join(line + b"\n" for line in lines)
    both.write(RING, whole)
    assert bytes(shown) == whole


def test_a_line_of_each_own_is_shown() -> None:
    shown, both = merged()
    both.write(HYPERCALL, b"early\n")
    both.write(RING, b"later\r\nearly\r\nearly\r\n")
    assert bytes(shown) == b"early\nlater\r\nearly\r\n"


def test_a_prompt_is_shown_when_the_guest_sleeps() -> None:
    shown, both = merged()
    both.write(HYPERCALL, b"login: as who?\n")
    both.write(RING, b"login: ")
    assert bytes(shown) == b"login: as who?\n"
    both.settle()
    both.write(RING, b"root\n")
    assert bytes(shown) == b"login: as who?\nlogin: root\n"


def test_a_snapshot_holds_what_waits_for_its_copy() -> None:
    shown, both = merged()
    both.write(HYPERCALL, b"one\ntw")
    saved = both.save()
    both.write(RING, b"one\n")
    both.load(saved)
    both.write(RING, b"one\n")
    assert bytes(shown) == b"one\ntw"


@pytest.mark.parametrize(
    ("show", "expected"),
    [("once", b"a\nb\nc\n"), ("both", b"a\nb\na\nc\n"), ("ring", b"a\nc\n"), ("hypercall", b"a\nb\n")],
)
def test_a_setting_chooses(show: str, expected: bytes) -> None:
    shown, memory = bytearray(), PhysicalMemory(1 << 16)
    console = XenConsole(shown.extend, show, page=4096)
    console.write(b"a\nb\n")
    OUT.put(memory, 4096, b"a\nc\n")
    assert console.exchange(memory)
    assert bytes(shown) == expected


def test_a_guest_that_writes_to_both() -> None:
    with SmallGuest(64) as g:
        g.call(18, 0, 6, g.put(0, b"hello\n"))
        OUT.put(g.hv.memory, g.hv.console.page, b"hello\r\nworld\r\n")
        port = g.put("data", g.hv.console.port.to_bytes(4, "little"))
        assert g.call(32, 4, port) == 0
        assert bytes(g.session.platform.console) == b"hello\nworld\r\n"


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(UsageError, match="console='loud': once or both or ring or hypercall"):
        Session(Kernel(load_image(image(64))), (backend,), memory=8 << 20, options={"console": "loud"})


def test_a_line_without_end_is_shown_and_not_kept() -> None:
    shown = bytearray()
    lines = MergedLines(shown.extend)
    for _ in range(100):
        lines.write(0, b"x" * 4096)
    assert bytes(shown) == b"x" * 409_600
    assert len(lines.outputs[0].line) <= 1 << 16
    lines.write(0, b"end\n")
    assert shown.endswith(b"xend\n")

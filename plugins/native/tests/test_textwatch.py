"""Text that is compared when processors have spoken to each other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from pvops_native.textwatch import TextWatch

from pvops_core.machine.memory import PhysicalMemory

BASE, PLACE, SIZE = 0xFFFFFFFF81000040, 0x10040, 0x9000


@attrs.define
class Watched:
    """A kernel's text in memory, and what the machine is told."""

    memory: PhysicalMemory = attrs.field(factory=lambda: PhysicalMemory(1 << 20))
    told: list[list[tuple[int, int]]] = attrs.field(factory=list)

    def watch(self) -> TextWatch:
        segment = SimpleNamespace(address=BASE, physical=PLACE, memory_size=SIZE)
        section = SimpleNamespace(address=BASE, size=SIZE, executable=True)
        image: Any = SimpleNamespace(sections=[section], segments=[segment])
        machine: Any = SimpleNamespace(memory=self.memory, invalidate=self.told.append)
        return TextWatch(machine, image)

    def change(self, *offsets: int) -> None:
        for offset in offsets:
            self.memory.set_u8(PLACE + offset, self.memory.u8(PLACE + offset) + 1)


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_nothing_changed_is_nothing_told(watched: Watched) -> None:
    watched.watch().look()
    assert watched.told == []


def test_what_changed_is_told_once_and_by_page(watched: Watched) -> None:
    watch = watched.watch()
    watched.change(0, 5, 0xFBF, 0xFC0, 0x8FFF)
    watch.look()
    watch.look()
    assert watched.told == [[(BASE, BASE + 0xFC0), (BASE + 0xFC0, BASE + 0xFC1), (BASE + 0x8FFF, BASE + 0x9000)]]


def test_many_changes_are_told_at_once(watched: Watched) -> None:
    watch = watched.watch()
    watched.change(*range(0, SIZE, 3))
    watch.look()
    [ranges] = watched.told
    assert len(ranges) == 10


def test_what_was_learnt_is_no_change(watched: Watched) -> None:
    watch = watched.watch()
    watched.change(7)
    watch.learn()
    watch.look()
    assert watched.told == []

"""Executable pages beside a kernel's image, found by its page tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pvops_native.moduletext import ModuleText
from text_rig import InKernel, Watched

from pvops_core.machine import MachineKind
from pvops_core.machine.memory import PhysicalMemory

if TYPE_CHECKING:
    from pvops_native.textwatch import TextWatch

ROOT, THIRD, SECOND, FIRST, MODULE = 0x40000, 0x41000, 0x42000, 0x43000, 0x50000
AT = 0xFFFFFFFFC0001000


def with_a_module(watched: Watched, *, there: bool = True) -> TextWatch:
    """A page that may be executed, one that may not, and the image's own in the last 2 GiB."""
    put = watched.memory.set_u64
    put(ROOT + 8 * 511, THIRD | 3)
    put(THIRD + 8 * 511, SECOND | 3)
    put(SECOND, FIRST | 3)
    put(FIRST + 8, MODULE | 1)
    put(FIRST + 16, MODULE + 0x1000 | 1 << 63 | 1)
    put(FIRST + 24, 1 << 40 | 1)  # no memory
    watched.vcpus.append(InKernel(ROOT | 0x18, there))
    watch = watched.watch()
    watch.look(told=True)
    return watch


def test_modules_are_told_when_they_come_and_change(watched: Watched) -> None:
    watch = with_a_module(watched)
    watch.look(told=True)
    assert watched.told == [[(AT, AT + 0x1000)]]
    watched.memory.set_u8(MODULE + 5, 1)
    watched.memory.set_u8(MODULE + 0x1005, 1)
    watch.look(told=True)
    watch.look(told=True)
    assert watched.told == [[(AT, AT + 0x1000)]] * 2
    watched.memory.set_u64(FIRST + 8, 0)
    watch.look(told=True)
    watched.memory.set_u64(FIRST + 8, MODULE | 1)
    watch.look(told=True)
    assert watched.told == [[(AT, AT + 0x1000)]] * 3


def test_modules_wait_until_somebody_is_in_the_kernel(watched: Watched) -> None:
    watch = with_a_module(watched, there=False)
    watch.look(told=False)
    assert watched.told == []
    watched.vcpus[0].there = True
    watch.look(told=False)
    watch.look(told=False)
    assert watched.told == [[(AT, AT + 0x1000)]]


def test_large_pages_and_those_of_the_image() -> None:
    memory = PhysicalMemory(16 << 20)
    memory.set_u64(ROOT + 8 * 511, THIRD | 3)
    memory.set_u64(THIRD + 8 * 510, SECOND | 3)
    memory.set_u64(SECOND + 8 * 8, 0x400000 | 0x81)  # the image's
    memory.set_u64(SECOND + 8 * 9, 0x600000 | 0x81)
    text = ModuleText(memory, MachineKind.X86_64, (0xFFFFFFFF81000000, 0xFFFFFFFF81200000))
    whole = [(at, at + 0x1000) for at in range(0xFFFFFFFF81200000, 0xFFFFFFFF81400000, 0x1000)]
    assert text.changes(ROOT) == whole
    assert text.changes(ROOT) == []
    memory.set_u8(0x601234, 1)
    assert text.changes(ROOT) == whole[1:2]
    text.forget()
    assert text.changes(ROOT) == whole


@pytest.mark.parametrize("kind", [MachineKind.PAE, MachineKind.I386])
def test_the_upper_part_of_a_32_bit_kernel(kind: MachineKind) -> None:
    memory = PhysicalMemory(1 << 20)
    if kind is MachineKind.PAE:
        memory.set_u64(0x40020 + 24, SECOND | 1)
        memory.set_u64(SECOND + 8 * 3, FIRST | 3)
        memory.set_u64(SECOND + 8 * 4, 0x81)  # all of memory
        memory.set_u64(FIRST + 8, MODULE | 1)
        memory.set_u64(FIRST + 16, MODULE | 1 << 63 | 1)
        root, at = 0x40020, 0xC0601000
    else:
        memory.set_u32(ROOT, SECOND | 7)  # a process's
        memory.set_u32(ROOT + 4 * 0x301, FIRST | 3)
        memory.set_u32(ROOT + 4 * 0x302, 0x81)
        memory.set_u32(FIRST + 4, MODULE | 1)
        root, at = ROOT, 0xC0401000
    assert ModuleText(memory, kind, (0xC1000000, 0xC2000000)).changes(root) == [(at, at + 0x1000)]

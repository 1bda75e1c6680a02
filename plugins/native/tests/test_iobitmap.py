"""Which bitmap of ports is in force in a processor's TSS, as in native_tss_update_io_bitmap."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pvops_native.iobitmap import PORTS, TaskBitmaps

BYTES = PORTS // 8
TSS, TASK, BITMAP = 0x1000, 0x8000, 0xA000
MEMBERS = {
    "x86_tss": 0,
    "x86_tss.io_bitmap_base": 0x66,
    "io_bitmap.prev_sequence": 0x68,
    "io_bitmap.prev_max": 0x70,
    "io_bitmap.bitmap": 0x78,
    "io_bitmap.mapall": 0x78 + BYTES + 8,
    "thread": 0x10,
    "io_bitmap": 0x20,
    "iopl_emul": 0x28,
    "sequence": 0,
    "max": 0x10,
    "bitmap": 0x18,
}


@attrs.define
class Processor:
    """Memory by number, as a vCPU gives it, and the names of a kernel."""

    memory: bytearray = attrs.field(factory=lambda: bytearray(0x20000))
    names: dict[str, int] = attrs.field(factory=lambda: {"cpu_tss_rw": TSS, "current_task": 0x10})

    def read_virtual(self, va: int, length: int) -> bytes:
        return bytes(self.memory[va : va + length])

    def write_virtual(self, va: int, data: bytes) -> None:
        self.memory[va : va + len(data)] = data

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - u16, set_u64 and so on
        size = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "word": 8}.get(name.removeprefix("set_"))
        if size is None:
            raise AttributeError(name)
        if name.startswith("set_"):
            return lambda va, value: self.write_virtual(va, value.to_bytes(size, "little"))
        return lambda va: int.from_bytes(self.read_virtual(va, size), "little")

    def __contains__(self, symbol: str) -> bool:
        return symbol in self.names

    def per_cpu(self, symbol: str, _cpu: object) -> int:
        return self.names[symbol]

    def member(self, _type: str, path: str) -> int:
        return MEMBERS[path]

    def task(self, *, bitmap: int = 0, sequence: int = 0, ports: bytes = b"", level: int = 0) -> TaskBitmaps:
        self.set_u64(0x10, TASK)
        self.set_u64(TASK + 0x10 + 0x20, bitmap)
        self.set_u64(TASK + 0x10 + 0x28, level)
        self.set_u64(BITMAP, sequence)
        self.set_u32(BITMAP + 0x10, len(ports))
        self.write_virtual(BITMAP + 0x18, ports.ljust(BYTES, b"\xff"))
        kernel: Any = self
        return TaskBitmaps(kernel, kernel)


def test_a_task_without_ports_closes_them_behind_the_limit() -> None:
    task = Processor().task()
    assert not task.open()
    assert task.base == task.none == 0x78 + 2 * (BYTES + 8) - 0


def test_all_ports_are_the_bitmap_of_zeroes_whatever_the_task_has() -> None:
    task = Processor().task(bitmap=BITMAP, level=3)
    assert task.open()
    assert task.base == MEMBERS["io_bitmap.mapall"]


@settings(deadline=None)
@given(first=st.binary(min_size=1, max_size=64), second=st.binary(min_size=1, max_size=64))
def test_ports_of_the_task_before_are_closed_again(first: bytes, second: bytes) -> None:
    processor = Processor()
    for sequence, ports in enumerate((first, second), 1):
        task = processor.task(bitmap=BITMAP, sequence=sequence, ports=ports)
        assert task.open()
        assert task.base == MEMBERS["io_bitmap.bitmap"]
    own = processor.read_virtual(TSS + MEMBERS["io_bitmap.bitmap"], 64)
    longest = max(len(first), len(second))
    assert own[:longest] == second.ljust(longest, b"\xff")[:longest]


def test_the_same_bitmap_is_not_copied_again() -> None:
    processor = Processor()
    processor.task(bitmap=BITMAP, sequence=7, ports=b"\0").open()
    processor.write_virtual(TSS + MEMBERS["io_bitmap.bitmap"], b"\xaa")
    processor.task(bitmap=BITMAP, sequence=7, ports=b"\0").open()
    assert processor.u8(TSS + MEMBERS["io_bitmap.bitmap"]) == 0xAA


@pytest.mark.parametrize("there", [True, False])
def test_a_stale_limit_is_told_once(*, there: bool) -> None:
    processor = Processor()
    if there:
        processor.names["__tss_limit_invalid"] = 0x20
        processor.set_u8(0x20, 1)
    task = processor.task()
    assert [task.limit_is_stale(), task.limit_is_stale()] == [there, False]

"""The host's C library: files mapped in place, code that runs and cannot be written, memory compared where it lies."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.errors import HostMemoryError
from pvops_core.machine.unicorn import libc
from pvops_core.x86 import PAGE


@pytest.mark.parametrize("shared", [True, False])
def test_a_file_takes_the_place_of_memory(tmp_path: Path, *, shared: bool) -> None:
    path = tmp_path / "pages"
    path.write_bytes(b"\x11" * PAGE + b"\x22" * PAGE)
    room = mmap.mmap(-1, 3 * PAGE)
    view = (ctypes.c_uint8 * (3 * PAGE)).from_buffer(room)
    with path.open("r+b") as file:
        assert libc.map_file(ctypes.addressof(view) + PAGE, PAGE, file.fileno(), offset=PAGE, shared=shared) == 0
    assert bytes(view) == bytes(PAGE) + b"\x22" * PAGE + bytes(PAGE)
    view[PAGE] = 0x33
    assert path.read_bytes()[PAGE] == (0x33 if shared else 0x22)


def test_what_cannot_be_mapped_has_an_errno(tmp_path: Path) -> None:
    path = tmp_path / "pages"
    path.write_bytes(bytes(PAGE))
    with path.open("rb") as file:
        assert os.strerror(libc.map_file(PAGE + 1, PAGE, file.fileno(), offset=0, shared=False)) == "Invalid argument"


def test_code_runs_and_cannot_be_written() -> None:
    address = libc.map_code(bytes.fromhex("8d0437c3"))  # lea eax, [rdi+rsi]; ret
    assert ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)(address)(40, 2) == 42
    rights = next(line for line in Path("/proc/self/maps").read_text().splitlines() if line.startswith(f"{address:x}-"))
    assert rights.split()[1] == "r-xp"


@given(st.binary(min_size=1, max_size=300), st.data())
def test_bytes_are_compared(data: bytes, chance: st.DataObject) -> None:
    first, second = np.frombuffer(data, np.uint8), np.frombuffer(data, np.uint8).copy()
    assert libc.same_bytes(first, second)
    second[chance.draw(st.integers(0, len(data) - 1))] ^= chance.draw(st.integers(1, 255))
    assert not libc.same_bytes(first, second)


def test_room_that_the_host_has_not_is_refused_with_its_size() -> None:
    libc.require_room(PAGE, "a page")
    with pytest.raises(HostMemoryError, match=f"{1 << 41} MiB for a moon"):
        libc.require_room(1 << 61, "a moon")

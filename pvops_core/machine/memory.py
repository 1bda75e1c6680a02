"""Guest-physical memory: one host buffer that every engine has mapped, read and written in place."""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from pvops_core.errors import HostMemoryError, MachineError, MemoryAccessError
from pvops_core.machine import hostpages
from pvops_core.machine.engines import WriteWatch, libc, same_bytes
from pvops_core.x86 import PAGE

__all__ = ["PAGE", "MemorySnapshot", "PhysicalMemory", "WriteWatch", "same_bytes"]

_CHUNK = 1 << 20
_U8, _U16, _U32, _U64 = (struct.Struct(code) for code in "BHIQ")


class MemorySnapshot:
    """The contents of memory at one time, in a file that restored machines share copy-on-write.

    Args:
        file: its descriptor, which is closed with this. A file on disk must not be changed while this is in use.
        size: bytes of memory.
        offset: of its first byte in the file, at a page's beginning.
    """

    def __init__(self, file: int, size: int, offset: int = 0) -> None:
        self.size = size
        self._file, self._offset = file, offset

    @classmethod
    def of(cls, array: npt.NDArray[np.uint8], touched: Iterable[tuple[int, int]] | None = None) -> MemorySnapshot:
        """A copy of an array, in a memory file.

        Args:
            array: whole pages.
            touched: starts and ends of what may be other than zero; anything unless given.
        """
        # Without a name in any file system: gone with the last machine that uses it.
        taken = cls(os.memfd_create("pvops-snapshot"), array.size)
        os.ftruncate(taken._file, array.size)
        for first, last in [(0, array.size)] if touched is None else touched:
            for start in range(first, last, _CHUNK):
                chunk = array[start : min(start + _CHUNK, last)]
                if chunk.any():  # the rest stays a hole, which reads as zeros
                    os.pwrite(taken._file, chunk.data, start)
        return taken

    def __del__(self) -> None:
        os.close(self._file)

    def read(self, pa: int, n: int) -> bytes:
        """``n`` bytes as they were at physical address ``pa``."""
        return os.pread(self._file, n, self._offset + pa)

    def extents(self) -> Iterator[tuple[int, int]]:
        """Start and end of what may be other than zero; the rest is holes."""
        end = 0
        while end < self.size:
            try:
                start = os.lseek(self._file, self._offset + end, os.SEEK_DATA) - self._offset
            except OSError as error:
                # ENXIO: no data behind this place (lseek(2), SEEK_DATA).
                if error.errno != errno.ENXIO:
                    raise
                return  # nothing but a hole is left
            if start >= self.size:
                return
            end = min(os.lseek(self._file, self._offset + start, os.SEEK_HOLE) - self._offset, self.size)
            yield start, end

    @contextmanager
    def mapped(self) -> Iterator[memoryview]:
        """All of it, to be read."""
        with (
            mmap.mmap(self._file, self.size, prot=mmap.PROT_READ, offset=self._offset) as whole,
            memoryview(whole) as view,
        ):
            yield view

    def map_at(self, address: int, *, shared: bool = False) -> None:
        """Put a private copy of the contents at a host address, in place of what is there; or the very contents."""
        if error := libc.map_file(address, self.size, self._file, offset=self._offset, shared=shared):
            raise MachineError(f"memory cannot be mapped anew: {os.strerror(error)}")


class PhysicalMemory:
    """Guest-physical memory from address 0 to ``size``.

    Every access is little-endian and raises MemoryAccessError outside of it. Nothing here tells the engines: after
    writing to a page that holds guest text, ``Machine.invalidate`` its addresses.

    Attributes:
        size: bytes.
        array: all of them.
        address: of the first, in the host's memory.
        origin: the snapshot that it last went back to, if any.
        replaced: all of it will be before anything runs; what is brought is then lost work.
    """

    def __init__(self, size: int) -> None:
        if size <= 0 or size % PAGE:
            raise MachineError(f"memory of {size:#x} bytes is not a whole number of pages")
        self.size = size
        try:
            # Pages that nobody touches cost nothing: a guest may have far more memory than the host would give at
            # once.
            self._buffer = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError):
            raise HostMemoryError.of(f"{size >> 20} MiB for the guest's memory") from None
        self.array: npt.NDArray[np.uint8] = np.frombuffer(self._buffer, np.uint8)
        self.address: int = self.array.ctypes.data
        self.origin: MemorySnapshot | None = None
        self.replaced = False
        self._file: MemorySnapshot | None = None

    def _check(self, pa: int, length: int) -> None:
        if pa < 0 or length < 0 or pa + length > self.size:
            raise self._outside(pa, length)

    def _outside(self, pa: int, length: int) -> MemoryAccessError:
        return MemoryAccessError(f"outside memory of {self.size:#x} bytes", address=pa, length=length)

    def read(self, pa: int, n: int) -> bytes:
        """``n`` bytes from physical address ``pa``."""
        if pa < 0 or n < 0 or pa + n > self.size:
            raise self._outside(pa, n)
        return self._buffer[pa : pa + n]

    def write(self, pa: int, data: bytes | bytearray | memoryview) -> None:
        """Write bytes at physical address ``pa``."""
        self._check(pa, len(data))
        self._buffer[pa : pa + len(data)] = data

    def bring(self, pa: int, data: bytes | bytearray | memoryview) -> None:
        """Write what a loader has of its files, and does not read here again: nothing where it will be ``replaced``."""
        if not self.replaced:
            self.write(pa, data)

    def u8(self, pa: int) -> int:
        """One byte."""
        if 0 <= pa < self.size:
            return self._buffer[pa]
        raise self._outside(pa, 1)

    def u16(self, pa: int) -> int:
        """A 16-bit word."""
        self._check(pa, 2)
        value: int = _U16.unpack_from(self._buffer, pa)[0]
        return value

    def u32(self, pa: int) -> int:
        """A 32-bit word."""
        self._check(pa, 4)
        value: int = _U32.unpack_from(self._buffer, pa)[0]
        return value

    def u64(self, pa: int) -> int:
        """A 64-bit word."""
        if 0 <= pa <= self.size - 8:
            value: int = _U64.unpack_from(self._buffer, pa)[0]
            return value
        raise self._outside(pa, 8)

    def set_u8(self, pa: int, value: int) -> None:
        """Write one byte."""
        self._check(pa, 1)
        self._buffer[pa] = value & 0xFF

    def set_u16(self, pa: int, value: int) -> None:
        """Write a 16-bit word."""
        self._check(pa, 2)
        _U16.pack_into(self._buffer, pa, value & 0xFFFF)

    def set_u32(self, pa: int, value: int) -> None:
        """Write a 32-bit word."""
        self._check(pa, 4)
        _U32.pack_into(self._buffer, pa, value & 0xFFFFFFFF)

    def set_u64(self, pa: int, value: int) -> None:
        """Write a 64-bit word."""
        if not 0 <= pa <= self.size - 8:
            raise self._outside(pa, 8)
        _U64.pack_into(self._buffer, pa, value & 0xFFFFFFFFFFFFFFFF)

    def save(self) -> MemorySnapshot:
        """Copy the contents out; the cost is that of what has ever been touched."""
        return MemorySnapshot.of(self.array, self.touched())

    def touched(self) -> list[tuple[int, int]]:
        """Starts and ends of what may be other than zero, whole pages: all of it where the host does not tell."""
        words = hostpages.entries(self.address, self.size)
        if not len(words):
            return [(0, self.size)]
        pages = hostpages.held(words)
        # Pages of the file underneath were touched by nobody here, and yet are other than zero.
        below = self.origin or self._file
        for start, end in below.extents() if below is not None else ():
            pages[start >> hostpages.PAGE_SHIFT : -(-end >> hostpages.PAGE_SHIFT)] = True
        # Neighbouring pages become one stretch, so that few calls copy them.
        borders = np.flatnonzero(np.diff(pages, prepend=False, append=False)) << hostpages.PAGE_SHIFT
        return [(start, end) for start, end in borders.reshape(-1, 2).tolist()]

    def load(self, snapshot: MemorySnapshot) -> None:
        """Go back to a snapshot: pages are shared with it until they are written."""
        if snapshot.size != self.size:
            raise MachineError(f"snapshot of {snapshot.size:#x} bytes does not fit memory of {self.size:#x}")
        snapshot.map_at(self.address)
        self.origin, self._file, self.replaced = snapshot, None, False

    @contextmanager
    def undone(self) -> Iterator[MemorySnapshot]:
        """Give what memory holds, and bring it back at the end; the cost is that of the pages that are touched.

        From the first time on memory is such a file itself, of which a private copy takes its place meanwhile.
        """
        file = self._file
        if file is None:
            file = self.save()
        self.load(file)
        try:
            yield file
        finally:
            # Shared from now on, so that what is written stays in the file and the next time costs no copy.
            file.map_at(self.address, shared=True)
            self.origin, self._file = None, file

"""Which pages of some memory have been written since they were last asked for, as the host's kernel knows it.

Linux 6.7 and later protect pages against writing and take the protection off by themselves at the first write
(``UFFD_FEATURE_WP_ASYNC``); ``PAGEMAP_SCAN`` gives those without it and protects them anew, some microseconds for
thousands of pages. Sources: Documentation/admin-guide/mm/userfaultfd.rst and pagemap.rst, include/uapi/linux/fs.h and
userfaultfd.h of Linux. Hosts that have not got it, or forbid it as containers may, tell nothing.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import struct
import weakref
from typing import TYPE_CHECKING, Final

from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_SYS_USERFAULTFD: Final = 323  # of x86_64, the only host that the engine is known on
_USER_MODE_ONLY: Final = 1
_API: Final = (0xC018AA3F, struct.Struct("=3Q"), (0xAA, 1 << 13 | 1 << 15, 0))
"""UFFDIO_API, asking for pages not there yet to be protected too, and for protection that takes itself off."""
_REGISTER: Final = 0xC020AA00
_RANGE: Final = struct.Struct("=4Q")
_WRITE_PROTECTION: Final = 2
_SCAN: Final = 0xC0606610
_SCAN_ARGUMENT: Final = struct.Struct("=12Q")
_PROTECT_MATCHING, _WRITTEN = 1 | 2, 2
_REGIONS: Final = 512


class WriteWatch:
    """Watches an array of memory, whole pages from a page's beginning on; closed when it is dropped.

    Args:
        array: the memory, which stays where it is, whatever is mapped there.
    """

    def __init__(self, array: npt.NDArray[np.uint8]) -> None:
        self._start, self._size = array.ctypes.data, array.size
        assert not (self._start | self._size) % PAGE
        self._regions = (ctypes.c_uint64 * (3 * _REGIONS))()
        self._faults, self._pages = _descriptors()
        for descriptor in {self._faults, self._pages} - {-1}:
            weakref.finalize(self, os.close, descriptor)

    def written(self) -> list[tuple[int, int]] | None:
        """Begin and end, in bytes of the array, of what has been written since the last time; None: who knows."""
        if self._faults < 0:
            return None
        try:
            return self._scan()
        except OSError:  # nothing was registered, or something else is mapped there by now
            self._register()
            return None

    def _scan(self) -> list[tuple[int, int]] | None:
        end, place = self._start + self._size, ctypes.addressof(self._regions)
        argument = bytearray(
            _SCAN_ARGUMENT.pack(
                _SCAN_ARGUMENT.size,
                _PROTECT_MATCHING,
                self._start,
                end,
                0,
                place,
                _REGIONS,
                0,
                0,
                _WRITTEN,
                0,
                _WRITTEN,
            )
        )
        count = fcntl.ioctl(self._pages, _SCAN, argument)
        if _SCAN_ARGUMENT.unpack(argument)[4] != end:
            return None  # there are more regions than room, which an early look is welcome to find
        found = self._regions[: 3 * count]
        return [(first - self._start, last - self._start) for first, last in zip(found[::3], found[1::3], strict=True)]

    def _register(self) -> None:
        """Ask for it; all pages count as written until they are first asked for."""
        try:
            fcntl.ioctl(self._faults, _REGISTER, bytearray(_RANGE.pack(self._start, self._size, _WRITE_PROTECTION, 0)))
            self._scan()
        except OSError:
            self._faults = -1


def _descriptors() -> tuple[int, int]:
    """Of what protects pages and of what tells of them; -1 for both where the host has not got it."""
    if platform.machine() != "x86_64":
        return -1, -1
    faults = ctypes.CDLL(None).syscall(_SYS_USERFAULTFD, _USER_MODE_ONLY | os.O_CLOEXEC)
    if faults < 0:
        return -1, -1
    request, form, wanted = _API
    try:
        fcntl.ioctl(faults, request, bytearray(form.pack(*wanted)))
        return faults, os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        os.close(faults)
        return -1, -1

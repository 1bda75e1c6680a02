"""What of the host's C library Python does not give: mapping at an address, comparing in place."""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import TYPE_CHECKING

from pvops_core.errors import HostError, HostMemoryError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_FIXED = 0x10  # MAP_FIXED has no name in the mmap module
_FAILED = (1 << 8 * ctypes.sizeof(ctypes.c_void_p)) - 1  # MAP_FAILED
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64)
_libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


def map_file(address: int, size: int, file: int, *, offset: int, shared: bool) -> int:
    """Put a file's bytes from an offset on, or a private copy, at a host address, in place of what is there.

    Gives 0, or the errno.
    """
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    how = _FIXED | (mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE)
    return 0 if _libc.mmap(address, size, protection, how, file, offset) == address else ctypes.get_errno()


def map_code(code: bytes) -> int:
    """Machine code where it can be executed and not be written, for good; its address.

    Raises:
        HostError: the host does not allow it, as one with ``vm.memfd_noexec=2`` or a policy against it.
    """
    try:
        with open(os.memfd_create("pvops-code"), "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(code)
            file.flush()
            return _executable(file.fileno(), len(code))
    except OSError as failure:
        told = f"this host does not let pvops execute machine code of its own: {failure.strerror}"
        raise HostError(told) from failure


def _executable(file: int, size: int) -> int:
    address: int | None = _libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, file, 0)
    if address is None or address == _FAILED:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return address


def require_room(size: int, what: str) -> None:
    """Ask the host for room by itself, for a library that ends the process where it gets none.

    Raises:
        HostMemoryError: it is refused.
    """
    try:
        mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        raise HostMemoryError.of(f"{size >> 20} MiB for {what}") from None


def same_bytes(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> bool:
    """Whether two contiguous arrays of one size are alike; numpy would make a third array of the answers."""
    return not _libc.memcmp(first.ctypes.data, second.ctypes.data, first.size)

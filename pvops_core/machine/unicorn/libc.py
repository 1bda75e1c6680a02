"""What of the host's C library Python does not give: mapping at an address, comparing in place."""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import TYPE_CHECKING

from pvops_core.errors import HostMemoryError, MachineError

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
        MachineError: the host does not allow it.
    """
    file = os.memfd_create("pvops-code")
    try:
        os.write(file, code)
        address: int | None = _libc.mmap(None, len(code), mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, file, 0)
    finally:
        os.close(file)
    if address in {None, _FAILED}:
        raise MachineError(f"code of our own cannot be executed: {os.strerror(ctypes.get_errno())}")
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

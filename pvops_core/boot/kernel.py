"""What is booted, read from files."""

from __future__ import annotations

from pathlib import Path

from pvops_core.errors import ImageError
from pvops_core.hookspecs.guest import Kernel
from pvops_core.images import load_image


def read_kernel(path: Path | str, initrd: Path | str | None = None, cmdline: str = "") -> Kernel:
    """Read a kernel and its initial ramdisk from files.

    Raises:
        ImageError: one of them cannot be read, or the kernel is none.
    """
    return Kernel(load_image(path), _read(Path(initrd)) if initrd else b"", cmdline)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else failure
        raise ImageError(f"cannot be read: {reason}", str(path)) from failure

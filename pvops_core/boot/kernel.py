"""What is booted, read from files."""

from __future__ import annotations

from pathlib import Path

from pvops_core.hookspecs.guest import Kernel
from pvops_core.images import load_image
from pvops_core.images.load import read_file


def read_kernel(path: Path | str, initrd: Path | str | None = None, cmdline: str = "") -> Kernel:
    """Read a kernel and its initial ramdisk from files.

    Raises:
        ImageError: one of them cannot be read, or the kernel is none.
    """
    return Kernel(load_image(path), read_file(Path(initrd), str(initrd)) if initrd else b"", cmdline)

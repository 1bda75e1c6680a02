"""What is booted: a kernel image with its initial ramdisk and command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import ImageError
from pvops_core.images import load_image
from pvops_core.kinds import MachineKind

if TYPE_CHECKING:
    from pvops_core.images import KernelImage


@attrs.frozen
class Kernel:
    """A kernel, ready to be put into a machine.

    Attributes:
        image: the unpacked kernel.
        initrd: bytes of the initial ramdisk, as they are in its file; empty for none.
        cmdline: the command line.
    """

    image: KernelImage
    initrd: bytes = attrs.field(default=b"", repr=False)
    cmdline: str = ""

    @property
    def kind(self) -> MachineKind:
        """The machine it needs. A processor with PAE also runs the 32-bit kernels that do not use it."""
        return MachineKind.X86_64 if self.image.machine == "x86_64" else MachineKind.PAE


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

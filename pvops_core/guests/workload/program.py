"""The program that makes the rounds, and a kernel that has it as its first process."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import UsageError
from pvops_core.images.cpio import Entry, archive

if TYPE_CHECKING:
    from pvops_core.guests.linux.kernel import Kernel

_OBJECTS: Final = Path(__file__).parent / "objects"
_NAME: Final = "pvops_workload"
"""Words of this form, with no dot before the sign, the kernel hands on to the first process as its environment
(``unknown_bootoption`` of init/main.c)."""


def program_path(bits: int) -> Path:
    """The committed program for a width."""
    return _OBJECTS / f"init-{bits}.elf"


@cache
def _ramdisk(bits: int) -> bytes:
    console = Entry.character_device("dev/console", 5, 1)  # Documentation/admin-guide/devices.txt
    return archive([Entry.file("init", program_path(bits).read_bytes(), 0o755), console])


def with_workload(kernel: Kernel, workloads: str) -> Kernel:
    """A kernel whose first process makes rounds of workloads (``fork:100,mmap:20``); the rest of its ramdisk is there.

    Raises:
        UsageError: its command line says that another program is to be the first process.
    """
    other = [word for word in kernel.cmdline.split() if word.startswith(("rdinit=", f"{_NAME}="))]
    if other:
        raise UsageError(f"a workload is the first process itself: leave {other[0]} out of the command line")
    # A kernel unpacks any number of archives, compressed or not, and looks for each at a multiple of four.
    padded = kernel.initrd + bytes(-len(kernel.initrd) % 4)
    cmdline = f"{kernel.cmdline} {_NAME}={workloads}".lstrip()
    return attrs.evolve(kernel, initrd=padded + _ramdisk(8 * kernel.image.pointer_size), cmdline=cmdline)

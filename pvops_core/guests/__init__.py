"""The guests that there are: a small kernel for each layout that is built in, and kernels' images."""

from pvops_core.guests.builtin.bootinfo import BootInfo, PlatformKind
from pvops_core.guests.builtin.image import LAYOUTS, BuiltinGuest, builtin_guest
from pvops_core.guests.builtin.report import Report, Status
from pvops_core.guests.linux.kernel import Kernel, read_kernel

__all__ = [
    "LAYOUTS",
    "BootInfo",
    "BuiltinGuest",
    "Kernel",
    "PlatformKind",
    "Report",
    "Status",
    "builtin_guest",
    "read_kernel",
]

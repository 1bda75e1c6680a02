"""The guests that there are: a small kernel for each layout that is built in, and kernels' images."""

from importlib import import_module

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


def __getattr__(name: str) -> object:
    return import_module("pvops_core.api1.names").moved(__name__, name)

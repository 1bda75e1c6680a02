"""Booting a real kernel: what is booted, and the machine that it boots on with the backend's platform around it."""

from pvops_core.boot.kernel import read_kernel
from pvops_core.boot.session import BootSession
from pvops_core.hookspecs.guest import Kernel

__all__ = ["BootSession", "Kernel", "read_kernel"]

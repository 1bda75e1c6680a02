"""Booting a real kernel: what is booted, and the machine that it boots on with the backend's platform around it."""

from pvops_core.boot.kernel import Kernel, read_kernel
from pvops_core.boot.session import BootSession

__all__ = ["BootSession", "Kernel", "read_kernel"]

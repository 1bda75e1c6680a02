"""Who boots the kernel, and by which command."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import attrs

QEMU = "qemu-system-x86_64"
QEMU_PACKAGE = "qemu-system-x86"
CONSOLES = {"native": "console=ttyS0", "xen": "console=hvc0 earlyprintk=xen"}


@attrs.frozen
class Boot:
    """What everybody boots.

    Attributes:
        kernel: a bzImage or ELF file.
        initrd: its ramdisk.
        memory: the guest's memory in MiB.
        words: what follows the console on the kernel's command line.
    """

    kernel: Path
    initrd: Path
    memory: int
    words: str = ""

    def command_line(self, console: str) -> str:
        """The kernel's command line."""
        return f"{console} {self.words}".strip()


def qemu(boot: Boot) -> list[str] | None:
    """QEMU's translator on bare metal; None where QEMU is not installed."""
    path = shutil.which(QEMU)
    if path is None:
        return None
    files = ["-kernel", str(boot.kernel), "-initrd", str(boot.initrd)]
    words = ["-append", boot.command_line(CONSOLES["native"])]
    quiet = ["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"]
    return [path, "-accel", "tcg,thread=single", "-smp", "1", "-m", str(boot.memory), *quiet, *files, *words]


def pvops(boot: Boot, backend: str) -> list[str]:
    """``pvops boot`` on one of our platforms."""
    words = boot.command_line(CONSOLES.get(backend, CONSOLES["native"]))
    files = [str(boot.kernel), "--initrd", str(boot.initrd), "--cmdline", words]
    command = [sys.executable, "-m", "pvops_core", "boot", "--backend", backend]
    return [*command, "--memory", str(boot.memory), *files]

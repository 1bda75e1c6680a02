"""Who boots the kernel, and by which command."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import attrs

QEMU = "qemu-system-x86_64"
QEMU_PACKAGE = "qemu-system-x86"
LAST_WORDS = ("reboot: Power down", "reboot: System halted")
"""A kernel says the one or the other, as it can switch the machine off itself or not; QEMU says nothing."""
OUTCOME = "outcome             poweroff"
"""What ``pvops boot`` says, whatever the kernel did."""
CONSOLES = {"native": "console=ttyS0", "xen": "console=hvc0 earlyprintk=xen"}


@attrs.frozen
class Booted:
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


@attrs.frozen
class Contestant:
    """Somebody who boots it.

    Attributes:
        command: by which it does.
        signs: lines of what that prints begin with one of these, after the kernel's time, once the machine is off.
    """

    command: list[str]
    signs: tuple[str, ...]

    def finished(self, output: str) -> bool:
        """Whether the boot came to its end, by what was printed; a kernel may not get its last words out."""
        lines = (re.sub(r"^\[ *[0-9.]+\] ", "", line) for line in output.splitlines())
        return any(line.startswith(self.signs) for line in lines)


def qemu(boot: Booted) -> Contestant | None:
    """QEMU's translator on bare metal; None where QEMU is not installed."""
    path = shutil.which(QEMU)
    if path is None:
        return None
    files = ["-kernel", str(boot.kernel), "-initrd", str(boot.initrd)]
    words = ["-append", boot.command_line(CONSOLES["native"])]
    quiet = ["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"]
    # Translated, on one thread, as our engine does it.
    command = [path, "-accel", "tcg,thread=single", "-smp", "1", "-m", str(boot.memory), *quiet, *files, *words]
    return Contestant(command, LAST_WORDS)


def pvops(boot: Booted, backend: str) -> Contestant:
    """``pvops boot`` on one of our platforms."""
    words = boot.command_line(CONSOLES.get(backend, CONSOLES["native"]))
    files = [str(boot.kernel), "--initrd", str(boot.initrd), "--cmdline", words]
    command = [sys.executable, "-m", "pvops_core", "boot", "--backend", backend]
    return Contestant([*command, "--memory", str(boot.memory), *files], (OUTCOME,))

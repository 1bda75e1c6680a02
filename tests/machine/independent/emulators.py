"""Runs a ROM on somebody else's model of a processor, and gives what was sent to the serial port.

Bochs 2.7 is Debian's package ``bochs`` with ``bochs-term``, which wants a terminal; QEMU its ``qemu-system-x86``.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.machine.independent import layout

SECONDS: Final = 600
_BOCHS: Final = """
config_interface: textconfig
display_library: term
romimage: file="{folder}/rom", address={place:#x}
memory: guest=32, host=32
cpu: model=bx_generic, ips=50000000, reset_on_triple_fault=0
clock: sync=none
com1: enabled=1, mode=file, dev="{folder}/told"
log: "{folder}/log"
panic: action=fatal
error: action=ignore
info: action=ignore
"""


class ProcessorError(Exception):
    """The emulator did not tell anything to the end."""


def bochs(rom: bytes) -> bytes:
    """What Bochs makes of a ROM."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rom").write_bytes(rom)
        (folder / "settings").write_text(_BOCHS.format(folder=folder, place=layout.ROM), encoding="utf-8")
        (folder / "go").write_text("continue\n", encoding="utf-8")
        command = f"{_program('bochs-bin')} -q -f {folder}/settings -rc {folder}/go"
        return _told([_program("script"), "-qec", command, "/dev/null"], folder)


def qemu(rom: bytes) -> bytes:
    """What QEMU's own translator makes of a ROM."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rom").write_bytes(rom)
        command = [
            *(_program("qemu-system-x86_64"), "-accel", "tcg", "-cpu", "qemu64", "-m", "32"),
            *(
                "-display",
                "none",
                "-nodefaults",
                "-no-reboot",
                "-serial",
                f"file:{folder}/told",
                "-bios",
                f"{folder}/rom",
            ),
        ]
        return _told(command, folder)


EMULATORS: Final = {"bochs": bochs, "qemu": qemu}


def _program(name: str) -> str:
    if (found := shutil.which(name)) is None:
        raise ProcessorError(f"{name} is not installed")
    return found


def _told(command: list[str], folder: Path) -> bytes:
    """It ends by a triple fault, which is no good end to either of them.

    Bochs would end at the end of what is typed: it gets a pipe on which nothing comes.
    """
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        child.wait(SECONDS)
    told = folder / "told"
    if not told.exists() or not told.stat().st_size:
        log = folder / "log"
        raise ProcessorError(log.read_text(errors="replace")[-2000:] if log.exists() else "nothing was told")
    return told.read_bytes()

"""A vCPU as a core file of a process, which gdb opens beside a file of symbols: where it says the frames are."""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

_PAGE = 4096
_REGISTERS = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
    *("orig_rax", "rip", "cs", "rflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
)
"""struct user_regs_struct (arch/x86/include/asm/user_64.h)."""
_STATUS, _STATUS_REGISTERS = 336, 112
"""Bytes of struct elf_prstatus, and where its registers are."""


def core(registers: Mapping[str, int], pages: Mapping[int, bytes]) -> bytes:
    """An ELF core of one thread."""
    words = struct.pack("<27Q", *(registers.get(name, 0) for name in _REGISTERS))
    status = bytearray(_STATUS)
    status[_STATUS_REGISTERS : _STATUS_REGISTERS + len(words)] = words
    note = struct.pack("<III", 5, _STATUS, 1) + b"CORE\0\0\0\0" + bytes(status)
    count = 1 + len(pages)
    at = 64 + 56 * count
    heads = struct.pack("<IIQQQQQQ", 4, 0, at, 0, 0, len(note), 0, 4)
    body = note
    for address, data in sorted(pages.items()):
        heads += struct.pack("<IIQQQQQQ", 1, 6, at + len(body), address, 0, len(data), len(data), 1)
        body += data
    head = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQI6H", 4, 62, 1, 0, 64, 0, 0, 64, 56, count, 64, 0, 0)
    return head + heads + body


def frames(symbols: Path, dump: Path) -> list[tuple[int, str]]:
    """The place and the name of each frame, the innermost first."""
    script = dump.with_suffix(".py")
    script.write_text(
        "import gdb\nframe = gdb.newest_frame()\nwhile frame is not None:\n"
        "    print('frame %#x %s' % (frame.pc() & (1 << 64) - 1, frame.name()))\n    frame = frame.older()\n"
    )
    command = ["gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off", "-ex", f"source {script}"]
    done = subprocess.run([*command, str(symbols), str(dump)], capture_output=True, check=True, text=True, timeout=120)
    return [
        (int(place, 16), name) for place, name in re.findall(r"^frame (0x[0-9a-f]+) (.*)$", done.stdout, re.MULTILINE)
    ]

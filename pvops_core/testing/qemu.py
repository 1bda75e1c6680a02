"""A QEMU that is none: its debugger stub, with a memory and the places that its machine comes to, as a test says.

:func:`install` puts it where a verb finds it by QEMU's name; :func:`story` tells it what a small kernel's boot is.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from pvops_core.testing.kernels import STUB, SmallKernel

PROGRAM: Final = "qemu-system-x86_64"
FUNCTIONS: Final = (
    "start_kernel",
    "alternative_instructions",
    "apply_alternatives",
    "run_init_process",
    "boot_cpu_data",
)
"""What a small kernel needs among its functions to be recorded; one with a paravirt step ``apply_paravirt`` too."""

STACK: Final = 0x7000
_RETURNED: Final = 8
"""Bytes from a function to where a call in it returns."""


@attrs.define
class Story:
    """What the machine does.

    Attributes:
        memory: hexadecimal bytes by address.
        stops: the places that it comes to, in order: registers, and what was written into memory before (``writes``).
        console: what it says before the first of them.
        refuses: what QEMU complains of instead of starting; empty where it starts.
        hangs: whether it runs for ever after the last place, instead of ending.
    """

    memory: dict[int, str] = attrs.field(factory=dict)
    stops: list[dict[str, Any]] = attrs.field(factory=list)
    console: str = ""
    refuses: str = ""
    hangs: bool = False


def story(kernel: SmallKernel, writes: Mapping[str, Mapping[int, str]] | None = None) -> Story:
    """The boot of a small kernel that was built with :data:`FUNCTIONS`.

    Args:
        kernel: the kernel.
        writes: name of a place (a function, or ``… returned``) to what was written by the time the boot is there.
    """
    from pvops_core.images import load_image  # noqa: PLC0415 - the program itself needs nothing

    image = load_image(kernel.builder().build())
    at, there = kernel.addresses, writes or {}
    sections = {section.name: section for section in image.sections}
    steps = [name for name in ("apply_paravirt", "apply_alternatives") if name in at]
    stops: list[dict[str, Any]] = []

    def come(name: str, address: int, first: int = 0, back: int = 0) -> None:
        written = {STACK: back.to_bytes(8, "little").hex(), **there.get(name, {})}
        stops.append({"rip": address, "rsp": STACK, "rdi": first, "rax": first, "writes": written})

    come("start_kernel", at["start_kernel"])
    whole = at["start_kernel"] + _RETURNED
    come("alternative_instructions", at["alternative_instructions"], back=whole)
    for name in steps:
        section = sections[".parainstructions" if name == "apply_paravirt" else ".altinstructions"]
        back = at["alternative_instructions"] + STUB // 2 + steps.index(name)
        come("somebody else's", at[name], first=1)
        come(name, at[name], first=section.address, back=back)
        come(f"{name} returned", back)
    come("alternative_instructions returned", whole)
    come("run_init_process", at["run_init_process"])
    segments = {each.address: image.read(each.address, each.memory_size).hex() for each in image.segments}
    return Story(memory={STACK: "00" * 16, **segments}, stops=stops, console="Linux version 6\n")


def install(folder: Path, told: Story) -> Path:
    """Put a QEMU into a folder, for the variable PATH."""
    script, program = folder / "story.json", folder / PROGRAM
    script.write_text(json.dumps(attrs.asdict(told)))
    code = f"from pvops_core.testing.qemu import main; main({str(script)!r})"
    program.write_text(f'#!/bin/sh\nexec \'{sys.executable}\' -c "{code}" "$@"\n')
    program.chmod(0o755)
    return program


def main(script: str) -> None:
    """Be QEMU, as far as the recorder is concerned."""
    told = Story(**json.loads(Path(script).read_text(encoding="utf-8")))
    if told.refuses:
        sys.exit(told.refuses)
    sys.stdout.write(told.console)
    sys.stdout.flush()
    number = next(word.rpartition("fd=")[2] for word in sys.argv if "fd=" in word)
    with socket.socket(fileno=int(number)) as connection:
        QemuMachine(told).serve(connection)


class QemuMachine:
    """The stub of a machine that does what it was told."""

    def __init__(self, told: Story) -> None:
        self._memory = {int(at): bytearray.fromhex(data) for at, data in told.memory.items()}
        self._stops, self._hangs = list(told.stops), told.hangs
        self._breakpoints: set[int] = set()
        self._registers: Mapping[str, Any] = {"rip": 0xFFF0}

    def serve(self, connection: socket.socket) -> None:
        """Answer until nobody asks any more."""
        received = b""
        while more := connection.recv(1 << 16):
            received += more
            while b"#" in received[:-2]:
                packet, _, rest = received.partition(b"#")
                received = rest[2:]
                reply = self.answer(packet.lstrip(b"+").removeprefix(b"$").decode())
                if reply is not None:
                    connection.sendall(b"+" + framed(reply))

    def answer(self, packet: str) -> str | None:
        """The reply to a packet; None for one that never comes."""
        order, values = packet[:1], packet[1:].split(",")
        if order in {"Z", "z"}:
            (self._breakpoints.add if order == "Z" else self._breakpoints.discard)(int(values[1], 16))
            return "OK"
        if order == "m":
            return self._read(int(values[0], 16), int(values[1], 16))
        if order == "g":
            # GDB's order for x86-64: rax rbx rcx rdx rsi rdi rbp rsp, r8 to r15, rip, eflags, segments.
            words = [
                self._registers.get({0: "rax", 5: "rdi", 7: "rsp", 16: "rip"}.get(place, ""), 0) for place in range(20)
            ]
            return "".join(int(word).to_bytes(8, "little").hex() for word in words)
        return self._go() if order == "c" else "T05thread:p01.01;"

    def _go(self) -> str | None:
        while self._stops:
            self._registers = self._stops.pop(0)
            for at, data in self._registers["writes"].items():
                self._write(int(at), bytes.fromhex(data))
            if self._registers["rip"] in self._breakpoints:
                return "T05thread:p01.01;"
        return None if self._hangs else "W00"

    def _read(self, address: int, length: int) -> str:
        held = self._held(address, length)
        return "E14" if held is None else held[1][address - held[0] :][:length].hex()

    def _write(self, address: int, data: bytes) -> None:
        held = self._held(address, len(data))
        assert held is not None, f"nothing is at {address:#x}"
        held[1][address - held[0] : address - held[0] + len(data)] = data

    def _held(self, address: int, length: int) -> tuple[int, bytearray] | None:
        held = self._memory.items()
        return next(((at, data) for at, data in held if at <= address and address + length <= at + len(data)), None)


def framed(packet: str) -> bytes:
    """A packet with its checksum."""
    return f"${packet}#{sum(packet.encode()) & 0xFF:02x}".encode()

"""A kernel of a few hundred bytes that patches its own sites as it is told to, comes by them, and powers off."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

import attrs

from pvops_core.images import KernelImage, load_image
from pvops_core.ops import LAYOUTS
from pvops_core.testing.kernels import SITE, SmallKernel

HEAD, CELL, BASE, STACK = 0x1000000, 0x1000F00, 0x1001000, 0x1200000
POWER_OFF = bytes.fromhex("66ba0406 66b80020 66ef f4")
Writes = Mapping[str, Iterable[tuple[int, bytes]]]


@attrs.define(slots=False)
class SelfPatching(SmallKernel):
    """A small kernel linked where it lies physically; its sites are functions, for each is followed by a ret."""

    @property
    def base(self) -> int:
        return BASE

    @classmethod
    def of(cls, *paths: str, layout: str = "6.1-64") -> SelfPatching:
        """With a site of each op."""
        table = LAYOUTS[layout]
        return cls(table, [table.by_path(path).type for path in paths])

    def build(
        self,
        writes: Writes | None = None,
        body: Sequence[bytes | int] = (),
        functions: Mapping[str, bytes] | None = None,
    ) -> KernelImage:
        """The kernel.

        Args:
            writes: what apply_paravirt and what the rest of alternative_instructions write where.
            body: what comes then: code, or numbers of sites to call.
            functions: code of more functions, by name.
        """
        writes = writes or {}
        builder = self.builder()
        for section in builder._sections:
            if section.name == ".init.text":
                cut = [section.data[at : at + 6] for at in range(0, len(section.data), SITE)]
                section.data = b"".join(site + b"\xc3\xc3" for site in cut)
                self.first_site = section.address
        code = _Code(HEAD, 8 * self.layout.pointer_size)
        code.add(b"\xbc" + struct.pack("<I", STACK))
        patcher = code.reserve_call()
        for piece in body:
            if isinstance(piece, int):
                code.call(self.first_site + SITE * piece)
            else:
                code.add(piece)
        builder.symbol("machine_power_off", code.here)
        code.add(POWER_OFF)
        builder.symbol("alternative_instructions", code.here)
        code.fill(patcher, code.here)
        paravirt = None if self.direct else code.reserve_call()
        code.write(writes.get("alternative_instructions", ()))
        code.add(b"\xc3")
        if paravirt is not None:
            builder.symbol("apply_paravirt", code.here)
            code.fill(paravirt, code.here)
            code.write(writes.get("apply_paravirt", ()))
            code.add(b"\xc3")
        for name, function in (functions or {}).items():
            builder.symbol(name, code.here)
            code.add(function)
        builder.symbol("start_kernel", HEAD)
        builder.entry = builder.text(".head.text", bytes(code.code).ljust(0x1000, b"\0"), address=HEAD)
        return load_image(builder.build())


class _Code:
    def __init__(self, start: int, bits: int) -> None:
        self.start, self.bits = start, bits
        self.code = bytearray()

    @property
    def here(self) -> int:
        return self.start + len(self.code)

    def add(self, code: bytes) -> None:
        self.code += code

    def call(self, target: int) -> None:
        self.code += b"\xe8" + struct.pack("<i", target - self.here - 5)

    def reserve_call(self) -> int:
        self.code += bytes(5)
        return len(self.code) - 5

    def fill(self, at: int, target: int) -> None:
        self.code[at : at + 5] = b"\xe8" + struct.pack("<i", target - self.start - at - 5)

    def write(self, writes: Iterable[tuple[int, bytes]]) -> None:
        """``mov byte [address], value`` for each byte; addresses are below 2 GiB."""
        operand = b"\xc6\x04\x25" if self.bits == 64 else b"\xc6\x05"
        for address, data in writes:
            for at, value in enumerate(data):
                self.code += operand + struct.pack("<IB", address + at, value)

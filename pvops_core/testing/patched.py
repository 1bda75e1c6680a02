"""What a backend's ``patch`` makes of a call site, as a test sees it."""

from __future__ import annotations

import struct
from importlib import import_module
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import PatchError, UsageError
from pvops_core.ops import Clobber, Convention
from pvops_core.patching.code.disasm import disassemble, listing, normal
from pvops_core.patching.code.template import substitute
from pvops_core.patching.patchlets import usual_length

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.testing.call import Caller

BRANCHES: Final = {0xE8: "call", 0xE9: "jump"}


@attrs.frozen
class Patched:
    """A site after ``patch``.

    Attributes:
        op: the op that is called there.
        address: guest-virtual address of the site.
        before: its bytes as built.
        code: its bytes after ``patch``, nops not filled in yet.
        used: how many of them ``patch`` said it used.
        bits: 32 or 64.
        symbols: the guest's symbols.
        entry: what the slot holds.
        beyond: what ``patch`` left behind the buffer's end, where it may not write.
    """

    op: str
    address: int
    before: bytes
    code: bytes
    used: int
    bits: int
    symbols: Mapping[str, int]
    entry: int
    beyond: bytes = b""

    @property
    def form(self) -> str:
        """``nop``, ``call``, ``jump``, ``inlined``, or ``left`` where the site stays as built."""
        if self.used == 0:
            return "nop"
        if self.code == self.before:
            return "left"
        return self.branch if self.branch and self.target == self.entry else "inlined"

    @property
    def branch(self) -> str:
        """``call`` or ``jump`` where the code is such a one, to wherever; else empty."""
        return BRANCHES.get(self.code[0], "") if self.used == 5 else ""

    @property
    def target(self) -> int:
        """Where the code leads, if it begins with a branch."""
        distance = struct.unpack_from("<i", self.code, 1)[0]
        return int(self.address + 5 + distance) & ((1 << self.bits) - 1)

    def assembles_to(self, assembly: str) -> bool:
        """Whether the code is this assembly, in the syntax of patchlets; AssertionError shows both if it is not.

        Args:
            assembly: instructions parted by ``;``, with ``{symbol+4}``, ``{.+13}`` and ``[rel {symbol}]``.
        """
        wanted = [normal(part) for part in substitute(assembly, self.address, self.symbols).split(";") if part.strip()]
        code = self.code[: self.used]
        try:
            found = [insn.text for insn in disassemble(code, self.address, self.bits)]
        except PatchError:
            found = [text for _address, _code, text in listing(code, self.address, self.bits)]
        if found != wanted:
            raise AssertionError(f"{self.op} is {'; '.join(found) or 'nothing'!r}, not {'; '.join(wanted)!r}")
        return True

    def fits(self, length: int | None = None) -> bool:
        """Whether it used no more than ``length`` bytes; by default than the site has. AssertionError if not."""
        limit = len(self.before) if length is None else length
        if not 0 <= self.used <= limit:
            raise AssertionError(f"{self.op}: {self.used} bytes do not fit into {limit}")
        if any(self.beyond):
            raise AssertionError(f"{self.op}: wrote behind the site's end: {self.beyond.hex(' ')}")
        return True


@attrs.frozen
class PatchCaller:
    """Asks the backend in force for the code of a site; the fixture ``patch``.

    The op ``patch`` is called as the guest calls it, with a buffer in the guest's memory.

    Attributes:
        call: makes the call.
    """

    call: Caller

    def __call__(self, op: str, length: int | None = None, *, address: int | None = None) -> Patched:
        """The code for a site of an op.

        Args:
            op: hook name of the op.
            length: bytes of the site; by default as many as sites of the op usually have.
            address: where the site is to be; by default in the padding of the guest's text.

        Raises:
            UsageError: the layout's table has no such op.
            CallError: ``patch`` did not come back.
        """
        session, call = self.call.session, self.call
        layout, guest = session.layout, session.builtin
        slot = layout.by_op(op)
        room = usual_length(slot.op, layout) if length is None else length
        place = layout.slot_address(guest.symbols, slot.type)
        at = call.text if address is None else address
        before = _site(place, at, guest.kind.bits, room, jump=slot.op.convention is Convention.JUMP)
        buffer = call.page()
        call.cpu.write_virtual(buffer, before)
        # Only patchers of kernels with a slot for patch decide by what a site lets be destroyed.
        clobbers = slot.op.clobbers if layout.has_slot("patch") else Clobber.ANY
        done = call("patch", slot.type, int(clobbers), buffer, at, room)
        code = call.cpu.read_virtual(buffer, room)
        beyond = call.cpu.read_virtual(buffer + room, len(before))
        entry = call.cpu.word(place)
        return Patched(op, at, before, code, done.result, guest.kind.bits, guest.symbols, entry, beyond)

    def site(self, op: str, number: int = 0) -> Patched:
        """One of the guest's own sites as it stands now, after all steps of patching and with its nops.

        Args:
            op: hook name of the op.
            number: which of its sites, in the order of the guest's records.

        Raises:
            UsageError: the op has no such site.
        """
        session = self.call.session
        layout, guest = session.layout, session.builtin
        slot = layout.by_op(op)
        sites = [site for site in guest.sites if site.type == slot.type and layout.has_slot(op)]
        if not 0 <= number < len(sites):
            raise UsageError(f"{op} has {len(sites)} sites in layout {layout.name}, none of number {number}")
        site = sites[number]
        code = session.read(site.address, site.length)
        # The least behind which only nops stand: code that ends in nops of its own counts as shorter.
        used = next(n for n in range(site.length + 1) if n == site.length or code[n:] == guest.nops(site.length - n))
        entry = self.call.cpu.word(layout.slot_address(guest.symbols, slot.type))
        before = guest.image.read(site.address, site.length)
        return Patched(op, site.address, before, code, used, guest.kind.bits, guest.symbols, entry)


def _site(place: int, address: int, bits: int, length: int, *, jump: bool) -> bytes:
    """An indirect call of a slot, and what stands after it in longer sites."""
    operand = struct.pack("<i", place - (address + 6)) if bits == 64 else struct.pack("<I", place)
    code = (b"\xff\x25" if jump else b"\xff\x15") + operand
    return code.ljust(length, b"\x90")[:length]


def __getattr__(name: str) -> object:
    return import_module("pvops_core.api1.names").moved(__name__, name)

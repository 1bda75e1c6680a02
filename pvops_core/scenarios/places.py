"""Addresses and code of a guest, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.ops import LAYOUTS
from pvops_core.patching.code.disasm import listing
from pvops_core.scenarios.acts import Listing

if TYPE_CHECKING:
    from pvops_core.guest import Guest
    from pvops_core.guests import BuiltinGuest
    from pvops_core.patching.sites import SiteRecord
    from pvops_core.scenarios.run import Run

_LONGEST_INSTRUCTION = 15


def symbolic(run: Run, address: int) -> str:
    """An address with the symbol that it belongs to, or the op whose gate it is."""
    if address in run.gates:
        return f"{address:#x} (the gate of {run.gates[address]})"
    found = run.guest.image.symbol_at(address) if run.in_text(address) else None
    if found is None:
        return f"{address:#x}"
    name, distance = found
    return f"{address:#x} ({name}+{distance:#x})" if distance else f"{address:#x} ({name})"


def op_of(guest: BuiltinGuest, site: SiteRecord) -> str:
    """The op that a site calls."""
    return LAYOUTS[guest.layout].by_type(site.type).op.name


def as_built(run: Run, title: str, address: int, length: int) -> Listing:
    """The instructions that began at an address and in the bytes after it when the guest was built."""
    return code(run.guest, title, address, run.built(address, length + _LONGEST_INSTRUCTION), length)


def at_end(run: Run, title: str, address: int, length: int) -> Listing:
    """Those that began there at the end of the run."""
    return code(run.guest, title, address, run.now(address, length + _LONGEST_INSTRUCTION), length)


def code(guest: Guest, title: str, address: int, data: bytes, length: int) -> Listing:
    """The instructions that begin in the first ``length`` of some bytes; more bytes let the last one end."""
    lines = [line for line in listing(data, address, guest.kind.bits) if line[0] < address + length]
    width = max((len(raw.hex(" ")) for _where, raw, _text in lines), default=0)
    return Listing(title, tuple(f"{where:x}  {raw.hex(' '):<{width}}  {text}" for where, raw, text in lines))


def target_of_call(address: int, data: bytes, bits: int) -> int | None:
    """Where a ``call`` or ``jmp rel32`` at an address leads; None if the bytes are neither."""
    if len(data) < 5 or data[0] not in {0xE8, 0xE9}:
        return None
    return address + 5 + int.from_bytes(data[1:5], "little", signed=True) & (1 << bits) - 1

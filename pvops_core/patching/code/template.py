"""Code with places that are filled in when it is known where it will live."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import PatchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SIZES = {"abs8": 1, "abs32": 4, "abs64": 8, "rel8": 1, "rel32": 4}
_PIECE = re.compile(
    r"\s*(?:(?P<hex>[0-9a-fA-F]{2})|\{(?P<symbol>[A-Za-z_.][\w.]*)(?P<addend>[+-]\w+)?:(?P<form>\w+)\})\s*"
)
_REFERENCE = re.compile(r"\{(?P<symbol>[A-Za-z_][\w.]*|\.)(?P<addend>[+-]\w+)?\}")


@attrs.frozen
class Placeholder:
    """A gap in code that takes a symbol's address.

    Attributes:
        offset: bytes from the start of the code.
        symbol: the symbol.
        addend: added to its address.
        form: abs8, abs32, abs64 (the address itself), rel8 or rel32 (counted from the place's end).
    """

    offset: int
    symbol: str
    addend: int
    form: str

    @property
    def size(self) -> int:
        """Bytes of the place."""
        return _SIZES[self.form]

    def fill(self, address: int, symbols: Mapping[str, int]) -> bytes:
        """The bytes of the place in code that lives at ``address``; PatchError if symbol or range do not allow it."""
        try:
            value = symbols[self.symbol] + self.addend
        except KeyError:
            raise PatchError(f"no symbol {self.symbol}", address=address) from None
        bits = self.size * 8
        if self.form.startswith("rel"):
            # A relative operand counts from the end of itself, which in these templates is the instruction's end.
            value -= address + self.offset + self.size
            fits = -(1 << (bits - 1)) <= value < 1 << (bits - 1)
        else:
            # A kernel address in the top 2 GiB is the sign extension of its low half.
            value = value - (1 << 64) if value >= (1 << 64) - (1 << (bits - 1)) else value
            # Taken for both, signed and unsigned: the assembler writes what fits either.
            fits = -(1 << (bits - 1)) <= value < 1 << bits
        if not fits:
            raise PatchError(f"{self.symbol} does not fit into {self.form}", address=address)
        return (value & ((1 << bits) - 1)).to_bytes(self.size, "little")


@attrs.frozen
class Template:
    """Code as bytes with places.

    Attributes:
        code: the bytes, zero in the places.
        places: the places in order.
    """

    code: bytes
    places: tuple[Placeholder, ...]

    def fill(self, address: int, symbols: Mapping[str, int]) -> bytes:
        """The code as it must be at ``address``; PatchError if a symbol is missing or out of reach."""
        code = bytearray(self.code)
        for place in self.places:
            code[place.offset : place.offset + place.size] = place.fill(address, symbols)
        return bytes(code)


def parse(text: str) -> Template:
    """Read hexadecimal bytes with places ``{symbol+number:form}``; ValueError if it is not that."""
    code = bytearray()
    places = []
    position = 0
    while position < len(text.rstrip()):
        match = _PIECE.match(text, position)
        if match is None:
            raise ValueError(f"{text[position:]!r} is neither a byte in hexadecimal nor a place")
        position = match.end()
        if match["hex"]:
            code += bytes.fromhex(match["hex"])
            continue
        if match["form"] not in _SIZES:
            raise ValueError(f"{match['form']!r} is not one of {', '.join(_SIZES)}")
        places.append(Placeholder(len(code), match["symbol"], int(match["addend"] or "0", 0), match["form"]))
        code += bytes(places[-1].size)
    return Template(bytes(code), tuple(places))


def references(text: str) -> Iterator[tuple[str, int]]:
    """Symbols, each with what is added to its address, that assembly text refers to as ``{symbol+number}``."""
    for match in _REFERENCE.finditer(text):
        # A dot is the code's own address, not a symbol.
        if match["symbol"] != ".":
            yield match["symbol"], int(match["addend"] or "0", 0)


def substitute(text: str, address: int, symbols: Mapping[str, int]) -> str:
    """Assembly text with ``{symbol+number}`` replaced by numbers; ``{.+number}`` counts from ``address``."""

    def value(match: re.Match[str]) -> str:
        start = address if match["symbol"] == "." else symbols[match["symbol"]]
        return hex(start + int(match["addend"] or "0", 0))

    return _REFERENCE.sub(value, text)

"""Finding a function of a kernel by name, with an error that helps.

A name is a symbol or, where several functions of different files have it, says which: ``name@0xffffffff81000000`` by
its address, ``name,2`` by its number among all symbols of that name in the order of their addresses, as a live patch's
``sympos`` does (Documentation/livepatch/livepatch.rst).
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from pvops_core.errors import UsageError

if TYPE_CHECKING:
    from pvops_core.images import KernelImage

_WHICH: Final = re.compile(r"(?P<name>.+?)(?:@(?P<address>(0x)?[0-9a-fA-F]+)|,(?P<number>[0-9]{1,9}))\Z")
_SHF_WRITE: Final = 0x1


def plain_name(text: str) -> str:
    """The symbol of a name, without what says which of several it is."""
    match = _WHICH.match(text)
    return match["name"] if match else text


def find_symbol(image: KernelImage, *names: str) -> int:
    """Guest-virtual address of the first of some names that the kernel has.

    Raises:
        UsageError: it has none of them, or the first that it has is that of several functions.
        ImageError: its symbols are damaged.
    """
    symbols = image.symbols
    for name in names:
        match = _WHICH.match(name)
        # A name may look like one with a number behind.
        if name in symbols:
            return _only(image, name)
        if match is not None and match["name"] in symbols:
            symbol, address, number = match["name"], match["address"], match["number"]
            return _at(image, symbol, address) if address else _numbered(image, symbol, int(number))
    if not symbols:
        raise UsageError(f"{image.path} has no symbols, so {names[0]!r} cannot be found")
    # Close matches of 100,000 names take seconds.
    close = difflib.get_close_matches(names[0], _alike(names[0], symbols), n=3)
    guess = f" (did you mean {' or '.join(close)}?)" if close else ""
    raise UsageError(f"{image.path} has no symbol {names[0]!r}{guess}")


def _alike(name: str, symbols: Iterable[str]) -> list[str]:
    """Of tens of thousands, those that may be close: about as long, of about the same letters, mistyped in few."""
    letters, most = Counter(name), max(2, len(name) // 5)
    near = (each for each in symbols if abs(len(each) - len(name)) <= most)
    return [each for each in near if (letters - Counter(each)).total() <= most]


def _places(image: KernelImage, name: str) -> tuple[int, ...]:
    """All addresses that a name has, ascending."""
    # Most names have one address, and are in no list of shared ones.
    return image.symbol_table.shared.get(name) or (image.symbols[name],)


def _only(image: KernelImage, name: str) -> int:
    """The one address of a name that is a function's; the symbol's own where none is."""
    functions = [address for address in _places(image, name) if _is_text(image, address)]
    # Data of the same name does not make a function ambiguous.
    if len(functions) > 1:
        raise _which(image, name, f"{len(functions)} functions are called {name!r}")
    return functions[0] if functions else image.symbols[name]


def _numbered(image: KernelImage, name: str, number: int) -> int:
    places = _places(image, name)
    if not 1 <= number <= len(places):
        raise _which(image, name, f"there is no {number} of {len(places)} called {name!r}")
    return places[number - 1]


def _at(image: KernelImage, name: str, digits: str) -> int:
    address = int(digits, 16)
    if address not in _places(image, name):
        raise _which(image, name, f"none called {name!r} is at {address:#x}")
    return address


def _is_text(image: KernelImage, address: int) -> bool:
    # Executable data is no text: 7.2's .data carries that flag. An image without sections says nothing.
    section = image.section_at(address)
    return section is None or (section.executable and not section.flags & _SHF_WRITE)


def _which(image: KernelImage, name: str, problem: str) -> UsageError:
    places = [
        f"{name},{number} at {address:#x}{'' if _is_text(image, address) else ' (data)'}"
        for number, address in enumerate(_places(image, name), 1)
    ]
    way = f"say which, as {name},1 or {name}@{_places(image, name)[0]:#x}"
    return UsageError(f"{image.path}: {problem}: {', '.join(places)}; {way}")

"""Functions of our own in machine code: what they are, and where they are in this process.

LLVM takes a process 20 ms to come up and 50 to compile what a machine needs, so the code is kept on disk. What is kept
is the text of an object file that needs nothing but itself: no address of the host's, no data, no other function.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec

from pvops_core.kept import CORE, Kept
from pvops_core.machine.unicorn import libc

if TYPE_CHECKING:
    from pvops_core.machine.unicorn.llvm.emit import Routine

_FOLDER: Final = Path(__file__).parents[1]
_MAKERS: Final = (
    "x86",
    "kept",
    *sorted(str(file.relative_to(CORE).with_suffix("")) for file in _FOLDER.rglob("*.py")),
)
"""All that a function's writing may read: the constants that go into it come from here."""
_KEPT: Final = Kept("code", _MAKERS, 16)


@attrs.frozen
class Width:
    """A type of parameters and results: a number of so many bits, nothing for 0. ``I32(2)`` is a number of it."""

    bits: int

    def __call__(self, number: int) -> Any:  # noqa: ANN401 - LLVM's library has no types
        """A number of this type, for the body of a function."""
        from pvops_core.machine.unicorn.llvm.emit import constant  # noqa: PLC0415 - brings LLVM

        return constant(self.bits, number)


VOID, I32, I64 = Width(0), Width(32), Width(64)


@attrs.frozen
class Source:
    """A function to be made.

    Attributes:
        write: writes its body.
        parameters: types of its parameters, without the pointer to the words, which comes last.
        result: type of its result.
    """

    write: Callable[[Routine], None]
    parameters: tuple[Width, ...]
    result: Width = VOID


def addresses_of(name: str, sources: Mapping[str, Source]) -> dict[str, int]:
    """Make functions, or take them from where they are kept.

    Args:
        name: what they are kept as, beside the LLVM and the kind of processor that they are for.
        sources: the functions by name.

    Returns:
        Where each is. They stay for as long as the process.
    """

    def make() -> tuple[bytes, dict[str, int]]:
        from pvops_core.machine.unicorn.llvm.emit import compiled  # noqa: PLC0415 - brings LLVM

        return compiled(sources)

    return placed(name, sources.keys(), make)


def placed(name: str, functions: AbstractSet[str], make: Callable[[], tuple[bytes, dict[str, int]]]) -> dict[str, int]:
    """The same of functions that are made in another way, as code and where in it each begins."""
    name = f"{name}-{version('llvmlite')}-{platform.machine()}"
    kept = _KEPT.read(name)
    code = kept[1] if kept else b""
    places = _places(kept[0], functions, len(code)) if kept else None
    if places is None:
        code, places = make()
        _KEPT.write(name, msgspec.msgpack.encode(places), code)
    start = libc.map_code(code)
    return {function: start + place for function, place in places.items()}


def _places(front: bytes, functions: AbstractSet[str], size: int) -> dict[str, int] | None:
    """Where in the code each function is; None if that cannot be."""
    try:
        places = msgspec.msgpack.decode(front, type=dict[str, int])
    except ValueError:
        return None
    return places if places.keys() == functions and all(0 <= at < size for at in places.values()) else None

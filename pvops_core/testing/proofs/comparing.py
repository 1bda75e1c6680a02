"""Where two calls from one state differ: the kernel's own function and a hook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, Protocol

import attrs
import numpy as np

from pvops_core.testing.changes import ACCESSED_DIRTY, PRESENT

if TYPE_CHECKING:
    from pvops_core.testing.proofs.sides import Side

KINDS: Final = (
    "end",
    "result",
    "registers",
    "flags",
    "memory",
    "page tables",
    "event mask",
    "hypercalls",
    "flushes",
    "faults",
)
"""What can differ."""


@attrs.frozen
class ProofDifference:
    """One thing in which two calls differ.

    Attributes:
        kind: one of :data:`KINDS`.
        what: which register, word of memory or hypercall.
        before: what it was before, where that is known.
        kernel: what it is after the kernel's own function.
        hook: what it is after the hook.
    """

    kind: str
    what: str
    kernel: str
    hook: str
    before: str = ""


class Places(Protocol):
    """Says what lies where in machine memory."""

    def read(self, address: int) -> bytes:
        """A page, as it was before both calls."""

    def name(self, address: int) -> tuple[str, str]:
        """What kind of memory a word is, and what people call it."""

    def scratch(self, address: int) -> bool:
        """Whether it may hold anything after a call."""

    def own(self, va: int) -> bool:
        """Whether a guest-virtual address is of such memory."""


def differences(kernel: Side, hook: Side, places: Places, size: int) -> Iterator[ProofDifference]:
    """Where two sides differ.

    Args:
        kernel: what the kernel's own function came to.
        hook: what the hook came to.
        places: names words of memory.
        size: bytes of a word.
    """
    if kernel.ended != hook.ended:
        yield ProofDifference("end", "how it ended", kernel.ended or "returned", hook.ended or "returned")
        return
    if kernel.result != hook.result:
        yield ProofDifference("result", "", f"{kernel.result:#x}", f"{hook.result:#x}")
    yield from _registers(kernel.registers, hook.registers)
    if kernel.flags != hook.flags:
        yield ProofDifference("flags", "rflags", f"{kernel.flags:#x}", f"{hook.flags:#x}")
    yield from _memory(kernel, hook, places, size)
    yield from _hypercalls(kernel, hook, places)
    if kernel.flushes != hook.flushes:
        yield ProofDifference("flushes", "TLB flushes", _flushes(kernel), _flushes(hook))
    if hook.faults and kernel.faults != hook.faults:  # what a function knows to do without leaves no trace
        yield ProofDifference("faults", "exceptions", _faults(kernel), _faults(hook))


def _registers(kernel: Mapping[str, int], hook: Mapping[str, int]) -> Iterator[ProofDifference]:
    for name in sorted(kernel.keys() & hook.keys()):
        if kernel[name] != hook[name]:
            yield ProofDifference("registers", name, f"{kernel[name]:#x}", f"{hook[name]:#x}")


def _memory(kernel: Side, hook: Side, places: Places, size: int) -> Iterator[ProofDifference]:
    for page in sorted(kernel.pages.keys() | hook.pages.keys()):
        before = places.read(page)
        one, other = (side.pages.get(page, before) for side in (kernel, hook))
        if one == other:
            continue
        old, left, right = (np.frombuffer(data, f"<u{size}") for data in (before, one, other))
        for place in np.flatnonzero(left != right).tolist():
            was, a, b = int(old[place]), int(left[place]), int(right[place])
            address = page + place * size
            walked = a & b & PRESENT and not (a ^ b) & ~ACCESSED_DIRTY  # set by the processor, on its way
            if place * size < kernel.dead.get(page, 0) or walked or places.scratch(address):
                continue
            kind, name = places.name(address)
            yield ProofDifference(kind, name, f"{a:#x}", f"{b:#x}", f"{was:#x}")


def _hypercalls(kernel: Side, hook: Side, places: Places) -> Iterator[ProofDifference]:
    if kernel.hypercalls == hook.hypercalls:
        return
    for number in range(max(len(kernel.hypercalls), len(hook.hypercalls))):
        one, other = (_call(side, number, places) for side in (kernel, hook))
        if one != other:
            yield ProofDifference("hypercalls", f"number {number}", one, other)


def _call(side: Side, number: int, places: Places) -> str:
    if number >= len(side.hypercalls):
        return "none"
    name, arguments, result, inner = side.hypercalls[number]
    own = ("own memory" if isinstance(each, str) or places.own(each) else f"{each:#x}" for each in arguments)
    shown = ", ".join(own)
    return f"{'in a multicall ' if inner else ''}{name}({shown}) = {result}"


def _flushes(side: Side) -> str:
    shown = (f"{what:#x}" if isinstance(what, int) else what for _, what in side.flushes)
    return ", ".join(shown) or "none"


def _faults(side: Side) -> str:
    shown = (f"vector {vector}" + (f" at {at:#x}" if at is not None else "") for vector, at in side.faults)
    return ", ".join(shown) or "none"

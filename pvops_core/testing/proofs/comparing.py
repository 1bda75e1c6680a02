"""Where two calls from one state differ: the kernel's own function and a hook."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from pvops_core.records import JsonRecord
from pvops_core.testing.changes import ACCESSED_DIRTY
from pvops_core.x86 import PRESENT

if TYPE_CHECKING:
    from pvops_core.testing.proofs.sides import Hypercall, Side
    from pvops_core.testing.proofs.unread import Masks

ProofKind = Literal[
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
]
"""What can differ."""


class ProofDifference(JsonRecord, frozen=True):
    """A thing in which the kernel's own function and the hook differ.

    Attributes:
        kind: What kind of thing.
        what: Which register, word of memory or hypercall.
        kernel: What it is after the kernel's own function.
        hook: What it is after the hook.
        before: What it was before, of memory; empty otherwise.
    """

    kind: ProofKind
    what: str
    kernel: str
    hook: str
    before: str = ""


class Places(Protocol):
    """Says what lies where in machine memory."""

    def read(self, address: int) -> bytes:
        """A page, as it was before both calls."""

    def name(self, address: int) -> tuple[ProofKind, str]:
        """What kind of memory a word is, and what people call it."""

    def scratch(self, address: int) -> bool:
        """Whether it may hold anything after a call."""

    def own(self, va: int) -> bool:
        """Whether a guest-virtual address is of such memory."""

    def unread(self, written: Mapping[int, bytes], among: Collection[int]) -> Masks:
        """Which bytes of some pages nobody reads, after a call that has written pages."""

    def returns(self, hypercall: str) -> bool:
        """Whether a hypercall ends the handling of a fault."""


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
    written = sorted(kernel.pages.keys() | hook.pages.keys())
    found = {page: [side.pages.get(page) or places.read(page) for side in (kernel, hook)] for page in written}
    differing = {page: pair for page, pair in found.items() if pair[0] != pair[1]}
    if not differing:
        return
    masks = [places.unread(side.pages, differing.keys()) for side in (kernel, hook)]
    for page, pair in differing.items():
        skipped = masks[0][page] & masks[1][page]
        before = places.read(page)
        left, right = (np.where(skipped, 0, np.frombuffer(data, "u1")).view(f"<u{size}") for data in pair)
        for place in np.flatnonzero(left != right).tolist():
            address = page + place * size
            was, a, b = (int.from_bytes(data[place * size :][:size], "little") for data in (before, *pair))
            walked = a & b & PRESENT and not (a ^ b) & ~ACCESSED_DIRTY  # set by the processor, on its way
            if place * size < kernel.dead.get(page, 0) or walked or places.scratch(address):
                continue
            kind, name = places.name(address)
            yield ProofDifference(kind, name, f"{a:#x}", f"{b:#x}", f"{was:#x}")


def _hypercalls(kernel: Side, hook: Side, places: Places) -> Iterator[ProofDifference]:
    calls = [_plain(_without_returns(kernel, len(kernel.faults) - len(hook.faults), places), places)]
    calls.append(_plain(hook.hypercalls, places))
    for number, (one, other) in enumerate(zip_longest(*calls, fillvalue="none")):
        if one != other:
            yield ProofDifference("hypercalls", f"number {number}", one, other)


def _without_returns(side: Side, count: int, places: Places) -> Iterator[Hypercall]:
    """Without those that end the handling of so many faults, which the other side has not got."""
    for call in side.hypercalls:
        if count > 0 and places.returns(call[0]):
            count -= 1
        else:
            yield call


def _plain(calls: Iterable[Hypercall], places: Places) -> list[str]:
    return [_call(call, places) for call in calls]


def _call(call: Hypercall, places: Places) -> str:
    name, arguments, result, inner, operations = call
    own = ("own memory" if isinstance(each, str) or places.own(each) else f"{each:#x}" for each in arguments)
    told = "".join(f" {{{', '.join(f'{word:#x}' for word in words)}}}" for words in operations)
    return f"{'in a multicall ' if inner else ''}{name}({', '.join(own)}){told} = {result}"


def _flushes(side: Side) -> str:
    shown = (f"{what:#x}" if isinstance(what, int) else what for _, what in side.flushes)
    return ", ".join(shown) or "none"


def _faults(side: Side) -> str:
    shown = (f"vector {vector}" + (f" at {at:#x}" if at is not None else "") for vector, at in side.faults)
    return ", ".join(shown) or "none"

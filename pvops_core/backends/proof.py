"""What a backend says of the proof of its hooks against a kernel's own functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Self

import attrs

from pvops_core.records import JsonRecord

if TYPE_CHECKING:
    from pvops_core.guest.types.structs import Structures


class Justified(JsonRecord, frozen=True):
    """Why a hook of an op is not compared with the kernel's own function, or may differ from it.

    Attributes:
        reason: Why, for people.
        source: What shows it: the function of Linux, commit or manual section.
    """

    reason: str
    source: str


@attrs.frozen
class Unread:
    """Memory of a kernel's that nobody reads before it is written anew, found by the kernel's own structures.

    Attributes:
        find: gives the address and bytes of each stretch, of one CPU by its number, from the kernel's memory as it is
            after a call. A StructureError means that the kernel has no such thing.
        reason: why nobody does, for people.
        source: the function of Linux, commit or manual section that shows it.
    """

    find: Callable[[Structures, int], Iterable[tuple[int, int]]]
    reason: str
    source: str


@attrs.frozen(kw_only=True)
class ProofNotes:
    """What is not compared, and why. There is not much of it in a sound backend.

    Attributes:
        justified: hook names of ops that are left out.
        scratch: symbols of variables, globs among them, that may hold anything after a call, with the reason; an
            address of theirs in a hypercall is like one of the stack.
        unread: memory that counts in part or at times, by a name of it.
        returns: names of hypercalls that end the handling of a fault: they are left out with a fault of the kernel's
            function that a hook knows to do without.
        event_mask: symbols of variables that say whether events are delivered, for reports.
        result_bits: hook names of ops whose result has bits that may be anything, with those that count.
    """

    justified: Mapping[str, Justified] = attrs.field(factory=dict)
    scratch: Mapping[str, str] = attrs.field(factory=dict)
    unread: Mapping[str, Unread] = attrs.field(factory=dict)
    returns: frozenset[str] = frozenset()
    event_mask: frozenset[str] = frozenset()
    result_bits: Mapping[str, int] = attrs.field(factory=dict)

    @classmethod
    def of(cls, notes: Iterable[Self]) -> ProofNotes:
        """Those of a chain of backends together; of two that speak of the same the first counts."""
        found = cls()
        for each in notes:
            found = cls(
                justified={**each.justified, **found.justified},
                scratch={**each.scratch, **found.scratch},
                unread={**each.unread, **found.unread},
                returns=found.returns | each.returns,
                event_mask=found.event_mask | each.event_mask,
                result_bits={**each.result_bits, **found.result_bits},
            )
        return found


NOTES = ProofNotes()
"""Those of a backend that says nothing."""

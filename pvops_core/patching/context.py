"""What a patcher is told besides the site: the table as it stands, and what may be put in place of a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

import attrs

from pvops_core.errors import UsageError
from pvops_core.ops.model import Clobber

if TYPE_CHECKING:
    from pvops_core.ops.model import Layout
    from pvops_core.patching.patchlets import Patchlet


class Branch(NamedTuple):
    """A ``call`` or ``jmp rel32`` to an address."""

    opcode: int
    target: int


def _fixed(targets: Sequence[int]) -> tuple[int, ...]:
    return tuple(targets)


@attrs.frozen(eq=False, slots=False)
class PatchContext:
    """The table and the text around a site, as a ``patch`` hook may know them.

    Attributes:
        layout: the op table's layout; ``type`` arguments are its type numbers.
        targets: by type number, the guest-virtual address that the slot holds; 0 is an empty slot.
        nop_address: address of the kernel's ``_paravirt_nop`` (2.6: ``paravirt_nop``): a slot that holds it does
            nothing.
        bug_address: address of ``paravirt_BUG``, which a 5.x or 6.x kernel calls in place of an empty slot.
        nops: the kernel's nops for the CPU at hand: as many bytes as asked for.
        patchlets: by op name, the patchlet that stands for the backend's implementation.
        symbols: guest symbols, for the places that patchlets leave open.
        any_register: the clobber word of a site that lets everything be destroyed which C may: the kernel's CLBR_ANY.
    """

    layout: Layout
    targets: Sequence[int] = attrs.field(converter=_fixed)
    nop_address: int
    bug_address: int
    nops: Callable[[int], bytes]
    patchlets: Mapping[str, Patchlet] = attrs.field(factory=dict)
    symbols: Mapping[str, int] = attrs.field(factory=dict)
    any_register: int = int(Clobber.ANY)

    @cached_property
    def has_patch_slot(self) -> bool:
        """Whether the table has a ``patch`` slot of its own, as in 2.6; later kernels patch by one fixed rule."""
        # Kernels from 5.13 on have none: static calls and alternatives took its place.
        return any(slot.op.name == "patch" for slot in self.layout.slots)

    @cached_property
    def chosen(self) -> dict[tuple[int, int, int], bytes | Branch | None]:
        """What the kernel's own rule makes of sites, as far as it was asked: by type, clobbers and bytes."""
        return {}

    @cached_property
    def heeds_clobbers(self) -> bool:
        """Whether a call is left alone that would destroy what its site needs: until the tables became one (4.20)."""
        # Since the tables are one, ``apply_paravirt`` calls whatever the slot holds.
        patch = next((slot for slot in self.layout.slots if slot.op.name == "patch"), None)
        return patch is not None and patch.symbol != "pv_ops"

    def target(self, type: int) -> int:
        """Address that the slot of this type number holds (0: empty); UsageError if there is no such slot."""
        if 0 <= type < len(self.targets):
            return self.targets[type]
        raise UsageError(f"layout {self.layout.name} has no op of type {type} (it has {len(self.targets)})")


class Patcher(Protocol):
    """A ``patch`` hook, bound to its backend.

    ``unsigned patch(u8 type, u16 clobbers, void *insnbuf, unsigned long addr, unsigned len)`` of struct paravirt_ops.
    """

    def __call__(self, ctx: PatchContext, type: int, clobbers: int, insnbuf: bytearray, addr: int, len: int) -> int:
        """Write code for the site into ``insnbuf``; the bytes used, or ``len`` to leave the site alone."""
        ...

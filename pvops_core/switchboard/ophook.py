"""A Python hook in front of an op of a kernel that fills its own table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import attrs

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.ops import Slot
    from pvops_core.switchboard.implementations import Implementation


class OpHookState(NamedTuple):
    """What changes of a hook while it stands; see there."""

    original: int
    calls: int
    replaced: int
    spread: bool
    refused: str
    originals: tuple[str, ...]
    kept: dict[int, bytes]


@attrs.define(eq=False)
class OpHook:
    """A hook that stands, or stood, in a kernel's table.

    Attributes:
        op: the op's hook name.
        name: what people call the hook.
        wanted: the function, as an implementation of the op.
        by: who asked for it, or for its end.
        counted: how often it was called, by its op.
        replaced: how often it gave a result, so that the kernel's own implementation was not called.
        originals: what it has stood in front of, by name, in order.
        sites: how many sites had been patched and were put back to calls through the slot.
        spread: a module's sites may have been patched with the entrance, which stays a jump when the hook goes.
        refused: why it was not put in or taken out as was asked for from inside a handler: who goes on in the text that
            had to change.
    """

    op: str
    name: str
    slot: Slot = attrs.field(repr=False)
    entrance: int = attrs.field(repr=False)
    wanted: Implementation = attrs.field(kw_only=True, repr=False)
    by: str = attrs.field(default="hook", kw_only=True)
    original: int = attrs.field(default=0, repr=False)
    action: Callable[[Vcpu], None] = attrs.field(default=lambda _vcpu: None, repr=False)
    counted: Counter[str] = attrs.field(factory=Counter, repr=False)
    replaced: int = 0
    spread: bool = False
    refused: str = ""
    originals: list[str] = attrs.field(factory=list)
    kept: dict[int, bytes] = attrs.field(factory=dict, repr=False)

    @property
    def calls(self) -> int:
        """How often it was called."""
        return self.counted[self.op]

    @property
    def sites(self) -> int:
        """Sites put back to calls through the slot."""
        return len(self.kept)

    def save(self) -> OpHookState:
        """State for a snapshot."""
        originals, kept = tuple(self.originals), dict(self.kept)
        return OpHookState(self.original, self.calls, self.replaced, self.spread, self.refused, originals, kept)

    def load(self, state: OpHookState) -> None:
        """Go back to a saved state."""
        self.original, self.counted[self.op], self.replaced, self.spread, self.refused, originals, kept = state
        self.originals, self.kept = list(originals), dict(kept)

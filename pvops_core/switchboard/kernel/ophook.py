"""A Python hook in front of an op of a kernel that fills its own table, and the code at which it is entered."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs

from pvops_core.errors import PatchError
from pvops_core.hookspecs.specs import specs
from pvops_core.switchboard.kernel.padding import PIECE

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.ops import Op, Slot
    from pvops_core.switchboard.implementation import Implementation


_JUMP: Final = 5
_RETURN: Final = b"\xc3"
_OVER: Final = b"\xeb\x05"
_FAR: Final = 1 << 31


class OpHookState(NamedTuple):
    """What changes of a hook while it stands; see there."""

    original: int
    calls: int
    replaced: int
    spread: bool
    refused: str
    originals: tuple[str, ...]
    kept: dict[int, bytes]
    passed: dict[str, int]


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
        spread: a module's sites may have been patched with the entry, which stays a jump when the hook goes.
        passed: of a backend's: why it left calls to the kernel's own function, and how many.
        refused: why it was not put in or taken out as was asked for from inside a handler: who goes on in the text that
            had to change.
    """

    op: str
    name: str
    slot: Slot = attrs.field(repr=False)
    entry: int = attrs.field(repr=False)
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
    passed: Counter[str] = attrs.field(factory=Counter)

    @property
    def answers(self) -> bool:
        """It is a backend's: what it does is all, unless it says otherwise. Else it looks on, unless it answers."""
        return bool(self.wanted.backend)

    @property
    def onward(self) -> int:
        """Address of the jump to what the slot held: where the entry begins, for one that looks on."""
        # The entry of one that answers begins with a jump to its own return.
        return self.entry + len(_OVER) * self.answers

    @property
    def back(self) -> int:
        """Address of a return beside it."""
        return self.onward + _JUMP

    def code(self, target: int) -> bytes:
        """Bytes of the entry: a jump to ``target`` and a return, before them a jump to that for a hook that answers.

        A hook that need not move RIP costs the engine nothing but the call; hence the two orders.

        Raises:
            PatchError: no jump leads there.
        """
        # The distance from behind the jump, as every rel32 counts it.
        distance = target - self.back
        if not target or not -_FAR <= distance < _FAR:
            raise PatchError(f"no jump leads from the hook's entry to {target:#x}", op=self.op, address=self.entry)
        code = b"\xe9" + struct.pack("<i", distance) + _RETURN
        # int3 to the end of the piece, as between functions.
        return (_OVER * self.answers + code).ljust(PIECE, b"\xcc")

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
        lists = tuple(self.originals), dict(self.kept), dict(self.passed)
        return OpHookState(self.original, self.calls, self.replaced, self.spread, self.refused, *lists)

    def load(self, state: OpHookState) -> None:
        """Go back to a saved state."""
        self.original, self.counted[self.op], self.replaced = state.original, state.calls, state.replaced
        self.spread, self.refused = state.spread, state.refused
        self.originals, self.kept = list(state.originals), dict(state.kept)
        self.passed.clear()
        self.passed.update(state.passed)


def arguments_of(op: Op) -> Sequence[str]:
    """What a hook of an op may take: what its specification says, unless the kernel calls it otherwise."""
    own, spec = [arg.name for arg in op.args], specs().get(op.name)
    # A hook of the specification's own arguments is what a backend has; the kernel may have given the op others.
    return spec.arguments[1:] if spec is not None and {*own} <= {*spec.arguments} else own


def told(hooks: Sequence[OpHook]) -> str:
    """Who writes text, for the event log."""
    more = f" and {len(hooks) - 1} more" if len(hooks) > 1 else ""
    return f"hook {hooks[0].name}{more}" if hooks else "hooks"

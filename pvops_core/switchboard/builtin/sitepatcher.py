"""What stands at a guest's sites, given who implements the ops: the paravirt step and alternatives, site by site."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pvops_core.backends.blame import blamed
from pvops_core.patching.context import PatchContext
from pvops_core.patching.patchdefault import patch_default, patch_sites
from pvops_core.patching.patchlets import select
from pvops_core.patching.poke import PokeBatch, Poker
from pvops_core.switchboard.builtin.alternatives import lock_features

if TYPE_CHECKING:
    from pvops_core.patching.context import Patcher
    from pvops_core.patching.patchlets import Patchlet
    from pvops_core.switchboard.builtin.gates import GateAllocator
    from pvops_core.switchboard.builtin.siteindex import SiteGroup
    from pvops_core.switchboard.builtin.text import SwitchableText
    from pvops_core.switchboard.implementation import Implementation
    from pvops_core.switchboard.offeredops import BoundBackend

PATCH = "patch"
PATCH_ARGUMENTS = ("type", "clobbers", "insnbuf", "addr", "len")

Implementations = Mapping[str, "Implementation"]


class SitePatcher:
    """Works out the code of sites; writes nothing.

    Args:
        text: the guest's text.
        chain: the backend in force, its base, its base's base.
        poker: reads guest text.
        gates: where implementations are called.
        forced: numbers of the CPU features that the platform forces on.
    """

    def __init__(
        self,
        text: SwitchableText,
        chain: Sequence[BoundBackend],
        poker: Poker,
        gates: GateAllocator,
        forced: frozenset[int],
    ) -> None:
        self._text = text
        self._chain = tuple(chain)
        self._poker = poker
        self._gates = gates
        self._forced = forced

    def features(self, current: Implementations) -> frozenset[int]:
        """Numbers of the CPU features that ALTERNATIVE entries find forced on."""
        return self._forced | lock_features(current, self._chain[-1].backend.name)

    def context(self, current: Implementations) -> PatchContext:
        """The table with these implementations in it, for a ``patch`` hook."""
        layout = self._text.layout
        return PatchContext(
            layout=layout,
            targets=[0 if slot.op.is_data else self._gates.address(current[slot.op.name]) for slot in layout.slots],
            nop_address=self._gates.nop_address,
            bug_address=self._gates.bug_address,
            nops=self._text.nops,
            patchlets=self._patchlets(current),
            symbols=self._text.symbols,
        )

    def _patchlets(self, current: Implementations) -> Mapping[str, Patchlet]:
        """A patchlet stands for its own backend's implementation, and for no other that an op may have now."""
        # By the backend that implements the op now, not by the one in force: after a switch both speak.
        by_backend = {b.backend.name: select(b.backend.patchlets, self._text.layout) for b in self._chain}
        return {
            op: patchlet
            for op, implementation in current.items()
            if (patchlet := by_backend.get(implementation.backend, {}).get(op)) is not None
        }

    @staticmethod
    def patcher(current: Implementations, op: str) -> Patcher:
        """Whose rules patch an op's sites: its backend's, or only calls for an implementation from outside."""
        patch = current[PATCH]
        # An implementation from outside has no patchlet, and no patch of its own that would know one.
        if not current[op].backend or patch.function is None:
            return patch_default
        return _with_arguments(patch.function, patch.arguments)

    def batches(self, ops: Iterable[str], current: Implementations, *, every_site: bool) -> dict[str, list[PokeBatch]]:
        """The pokes that bring the sites of these ops up to date, by op.

        Args:
            ops: the ops.
            current: who implements what.
            every_site: patch all sites; if not, those that have been patched before.

        Raises:
            PatchError: the ``patch`` hook gave what cannot be written.
            PluginError: it raised anything else than an error of ours.
        """
        context, features = self.context(current), self.features(current)
        found, asked = {}, current[PATCH]
        for op in ops:
            patch, known = self.patcher(current, op), features if current[op].backend else None
            with blamed(asked.source, asked.name, hook=PATCH, about=f", for {op}"):
                shapes = self._text.sites.of(op)
                batches = [self._batch(shape, context, patch, known, every_site=every_site) for shape in shapes]
                found[op] = [batch for batch in batches if batch is not None]
        return found

    def _batch(
        self,
        shape: SiteGroup,
        context: PatchContext,
        patch: Patcher,
        features: frozenset[int] | None,
        *,
        every_site: bool,
    ) -> PokeBatch | None:
        """New bytes for the sites of a shape; without features no ALTERNATIVE speaks for the implementation."""
        now = self._poker.read(shape.addresses, shape.length)
        # A patcher that left a site alone has patched it too
        patched = shape.patched | (now != shape.original).any(axis=1)
        rows = np.arange(len(now)) if every_site else np.flatnonzero(patched)
        if not len(rows):
            return None
        # Even where nothing is going to change: who guards a site would later put back what it is not to be any more.
        places = shape.addresses[rows]
        self._poker.refuse_held(np.stack((places, places + np.uint64(shape.length)), axis=1), "its sites are patched")
        new = patch_sites(context, patch, shape.type, shape.clobbers, shape.original[rows], places)
        # Without features no alternative stands for it: the op's implementation is not the kernel's any more.
        if features is not None:
            new = self._text.alternatives.apply_all(places, new, features)
        changed = np.flatnonzero((new != now[rows]).any(axis=1))
        return PokeBatch(places[changed], now[rows][changed], new[changed]) if len(changed) else None


def _with_arguments(function: Callable[..., int], names: tuple[str, ...]) -> Patcher:
    """A ``patch`` hook that may have left out arguments it does not want."""
    if names == PATCH_ARGUMENTS:
        return function

    def patch(ctx: PatchContext, type: int, clobbers: int, insnbuf: bytearray, addr: int, len: int) -> int:
        given = dict(zip(PATCH_ARGUMENTS, (type, clobbers, insnbuf, addr, len), strict=True))
        return function(ctx, *(given[name] for name in names))

    return patch

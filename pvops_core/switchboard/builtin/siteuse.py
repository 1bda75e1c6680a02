"""What becomes of the ops that a backend has itself: called, or something else stands where they would be called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import PatchError
from pvops_core.patching.altinstructions.alternatives import FEATURES, replace
from pvops_core.patching.patchdefault import patch_default, patch_site
from pvops_core.patching.patchlets import select
from pvops_core.switchboard.findings import SiteUse, SiteUseEnd
from pvops_core.switchboard.implementation import Form

if TYPE_CHECKING:
    from pvops_core.patching.altinstructions.alternatives import AltEntry
    from pvops_core.patching.context import PatchContext
    from pvops_core.patching.patchlets import Patchlet
    from pvops_core.patching.poke import Poker
    from pvops_core.switchboard.builtin.siteindex import SiteGroup
    from pvops_core.switchboard.builtin.text import SwitchableText
    from pvops_core.switchboard.implementation import Implementation
    from pvops_core.switchboard.offeredops import BoundBackend

_NAMES = {number: name for name, number in FEATURES.items()}


@attrs.frozen
class _Over:
    by: str
    advice: str


@attrs.frozen
class SiteUses:
    """Looks at a guest's sites as they are now.

    Attributes:
        text: the guest's text.
        chain: the backend, its base, its base's base.
        poker: reads sites.
        context: the table as it stands.
        features: numbers of the CPU features that ALTERNATIVE entries find.
        patch: whose rules the sites were patched by.
    """

    text: SwitchableText
    chain: Sequence[BoundBackend]
    poker: Poker
    context: PatchContext
    features: frozenset[int]
    patch: Implementation

    def of(self, own: Mapping[str, Implementation], calls: Mapping[str, int]) -> dict[str, SiteUse]:
        """What stands at the sites of every op that the backend has itself.

        Args:
            own: what it has, by op.
            calls: calls that its hooks have served.
        """
        patchlets = [(each.backend.name, select(each.backend.patchlets, self.text.layout)) for each in self.chain]
        return {op: self._use(one, calls.get(op, 0), patchlets) for op, one in own.items()}

    def _use(self, own: Implementation, calls: int, patchlets: Sequence[tuple[str, Mapping[str, Patchlet]]]) -> SiteUse:
        candidates = [(name, by_op[own.op]) for name, by_op in patchlets if own.op in by_op]
        over: Counter[str] = Counter()
        advice: dict[str, str] = {}
        sites = inlined = 0
        for shape in self.text.sites.of(own.op):
            sites += len(shape.addresses)
            for place, now in self._unlike(shape):
                found = self._who(own, place, now, candidates)
                if found is None:
                    inlined += 1
                else:
                    over[found.by] += 1
                    advice[found.by] = found.advice
        becomes = _becomes(own.form, calls, sites, inlined, over.total())
        told = _told(own.op, sites, over, advice)
        if not over and becomes == "uncalled" and len(self.chain) > 1:  # in the place of a base's op
            where = f"at any of its {sites} sites" if sites else "and has no site of it"
            told = f"{own.op} is yours, but the guest never called it {where}"
        return SiteUse(becomes, calls, sites, inlined, dict(over), told)

    def _unlike(self, shape: SiteGroup) -> Iterator[tuple[int, bytes]]:
        """The sites that neither are as built nor lead to what the slot holds: address, bytes now."""
        rows = zip(
            shape.addresses.tolist(), shape.original, self.poker.read(shape.addresses, shape.length), strict=True
        )
        for place, built, here in rows:
            original, now = built.tobytes(), here.tobytes()
            if now == original:
                continue
            # What patch_default makes is a call of the slot's function: nobody's code is over it.
            if now != patch_site(self.context, patch_default, shape.type, shape.clobbers, original, place):
                yield place, now

    def _who(
        self, own: Implementation, place: int, now: bytes, patchlets: Sequence[tuple[str, Patchlet]]
    ) -> _Over | None:
        """Whose code stands at a site; None for code that stands for the backend's own implementation."""
        # The last alternative that applies is the one that was written.
        for entry, code in reversed(self.text.alternatives.entries.get(place, ())):
            if entry.applies(self.features) and now.startswith(replace(entry, code, self.text.alternatives.padding)):
                # The kernel's ALTERNATIVEs are the code of the backend that it is linked with: for that one no loss.
                return None if own.backend == self.chain[-1].backend.name else _alternative(entry)
        # Every backend's, since any of them may have patched before the switch.
        for name, patchlet in patchlets:
            if now == self._assembled(patchlet, place, len(now)):
                return None if name == own.backend else self._patched(own, f"{name}'s patchlet")
        return None if self.patch.backend == own.backend else self._patched(own, f"code of {self.patch.name}")

    def _assembled(self, patchlet: Patchlet, place: int, length: int) -> bytes | None:
        """What a patchlet makes of a site; None where it does not fit or names what this guest has not got."""
        try:
            code = patchlet.assemble(place, self.context.symbols)
        except PatchError:
            return None
        return code + self.text.nops(length - len(code)) if len(code) <= length else None

    def _patched(self, own: Implementation, by: str) -> _Over:
        if self.patch.backend == own.backend:
            return _Over(by, f"your patch puts it there: let it leave {own.op} to patch_default")
        return _Over(by, f"{self.patch.name} puts it there: have a patch of your own that leaves it to patch_default")


def _alternative(entry: AltEntry) -> _Over:
    name = _NAMES.get(entry.feature)
    shown = name or f"feature {entry.feature // 32}*32+{entry.feature % 32}"
    by = f"ALTERNATIVE {'!' * entry.inverted}{shown}"
    if name is None:
        return _Over(by, "it goes by what the CPU is, which no backend can force")
    if entry.inverted:
        return _Over(by, f"declare forces=frozenset({{{name!r}}}) to have it called")
    return _Over(by, f"it is there because {name} is forced")


def _becomes(form: Form, calls: int, sites: int, inlined: int, lost: int) -> SiteUseEnd:
    if lost:
        return "lost" if lost == sites else "partly lost"
    if form is not Form.FUNCTION:
        return form.value  # type: ignore[no-any-return]
    if sites and inlined == sites:
        return "inlined"
    return "called" if calls else "uncalled"


def _told(op: str, sites: int, over: Mapping[str, int], advice: Mapping[str, str]) -> str:
    """One line for the author of an op that other code stands in place of; empty where none does."""
    if not over:
        return ""
    parts = [f"{number} of {sites} sites are inlined over it by {by}" for by, number in over.items()]
    return f"{op} is yours, but {' and '.join(parts)}; {'; '.join(advice.values())}"

"""The sites of a kernel that patches itself: what they are now, were built as, and would be without a hook."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from pvops_core.patching.altinstructions.alternatives import overlapping, read_alternatives
from pvops_core.patching.code.nops import kernel_nops
from pvops_core.patching.context import PatchContext
from pvops_core.patching.fills import find_bug, find_nop
from pvops_core.patching.patchdefault import patch_default, patch_site
from pvops_core.patching.text import BuiltText

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pvops_core.guest import GuestText
    from pvops_core.guest.points import Points
    from pvops_core.images import KernelImage
    from pvops_core.ops import Slot
    from pvops_core.patching.sites import SiteRecord
    from pvops_core.switchboard.kernel.modulesites import ModuleSites
    from pvops_core.switchboard.kernel.table import OpTable

JUMP: Final = 5
"""Bytes of a call or jump with a 32-bit distance."""
_BRANCHES: Final = (b"\xe8", b"\xe9")


class KernelSites:
    """The annotated calls of one kernel.

    Args:
        image: the kernel.
        running: its text as it is now.
        table: its table of ops, whose sites these are.
        points: how far its boot has come.
        modules: the sites of its modules.
    """

    def __init__(
        self, image: KernelImage, running: GuestText, table: OpTable, points: Points, modules: ModuleSites
    ) -> None:
        self._image = image
        self._running = running
        self._table = table
        self._points = points
        self._modules = modules
        self._text = BuiltText(image)
        mixed = self._mixed()
        self._by_type: dict[int, list[SiteRecord]] = {}
        for site in table.sites:
            # A place that an alternative shares is written by the kernel in its own time.
            if site.address not in mixed:
                self._by_type.setdefault(site.type, []).append(site)

    def _mixed(self) -> frozenset[int]:
        """Sites that an ALTERNATIVE touches without being just the site: those are left to the kernel."""
        spans = [(site.address, site.address + site.length) for site in self._table.sites]
        exact = dict(spans)
        entries = overlapping(read_alternatives(self._image), spans)
        odd = [(entry.address, entry.address + entry.length) for entry in entries]
        return frozenset(
            start
            for first, last in odd
            if exact.get(first) != last
            for start, end in spans
            if start < last and first < end
        )

    def of(self, slot: Slot) -> Iterator[SiteRecord]:
        """The sites of an op, its modules' last; none of text that the kernel has given back."""
        passed = "free_initmem" in self._points.passed
        yield from (site for site in self._by_type.get(slot.type, ()) if not (passed and _gone(site)))
        yield from self._modules.of(slot)

    def in_the_making(self, slot: Slot) -> bool:
        """Whether a module that has not begun yet may have sites of an op."""
        return self._modules.in_the_making(slot)

    def built(self, address: int, length: int) -> bytes:
        """What stands in the image, or in a module's."""
        own = self._modules.built(address)
        return self._text.read(address, length) if own is None else own

    def patched(self, slot: Slot) -> dict[int, bytes]:
        """Sites of an op that are not as they were built, and what they are."""
        found = {}
        for site in self.of(slot):
            code = self._running.read(site.address, site.length)
            if code != self.built(site.address, site.length):
                found[site.address] = code
        return found

    def without(self, slot: Slot, kept: Mapping[int, bytes], entry: int, original: int) -> dict[int, bytes]:
        """What sites are to be when a hook is gone: what the kernel made of them, or would have without the hook.

        Args:
            slot: the hook's op.
            kept: what the kernel had made of them.
            entry: where the hook is called.
            original: what the slot held before.
        """
        sites = {site.address: site for site in self.of(slot)}
        there = {at: code for at, code in kept.items() if at in sites}
        context = None
        for at, code in there.items():
            # A kernel that patched while the hook was in the slot made a direct call of what it found there.
            if code[:1] in _BRANCHES and struct.unpack_from("<i", code, 1)[0] + at + JUMP == entry:
                context = context or self._context(slot, original)
                site, built = sites[at], self.built(at, len(code))
                there[at] = patch_site(context, patch_default, site.type, site.clobbers, built, at)
        return there

    def _context(self, slot: Slot, original: int) -> PatchContext:
        image, targets = self._image, list(self._table.targets())
        # As the table would be without the hook: its entry would come to stand at sites that nobody empties.
        targets[slot.type] = original
        return PatchContext(
            layout=self._table.layout,
            targets=targets,
            nop_address=find_nop(image) or -1,
            bug_address=find_bug(image) or 0,
            nops=kernel_nops(image),
            symbols=image.symbols,
        )


def _gone(site: SiteRecord) -> bool:
    """The site is in text that a kernel gives back when it has booted."""
    # free_initmem gives .init back; .exit of what is built in goes with it (INIT and EXIT of vmlinux.lds.S).
    return site.section.startswith((".init", ".exit"))

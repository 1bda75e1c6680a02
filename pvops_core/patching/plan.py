"""A patch plan: for every site its bytes as built, after the paravirt step if there is one, and after alternatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import PatchError
from pvops_core.patching.altinstructions.alternatives import ALWAYS, AltEntry, AltGroup, replace
from pvops_core.patching.patchdefault import patch_site
from pvops_core.patching.text import Text

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.patching.code.padding import Rewriting
    from pvops_core.patching.context import PatchContext, Patcher
    from pvops_core.patching.records import SiteRecord

Calls = Callable[[AltGroup, bytes], bytes]
"""What becomes of a place that is a call of an op, of its bytes as built."""


@attrs.frozen
class PlannedSite:
    """One site and what becomes of it.

    Attributes:
        site: its record.
        original: its bytes as built.
        paravirt: after the paravirt step; None in a kernel that has no such step, from 6.8 on.
        final: after alternatives.
        inlined: whether an alternative, or the kernel's own patch op, put other code in place of the call.
    """

    site: SiteRecord
    original: bytes
    paravirt: bytes | None
    final: bytes
    inlined: bool


@attrs.frozen
class PlannedGroup:
    """One place with alternatives and what becomes of it.

    Attributes:
        group: its entries.
        original: its bytes before alternatives.
        chosen: the entry that applies; None where the code stays.
        final: its bytes after alternatives.
    """

    group: AltGroup
    original: bytes
    chosen: AltEntry | None
    final: bytes


def make_plan(
    image: KernelImage,
    ctx: PatchContext,
    patch: Patcher,
    sites: Sequence[SiteRecord],
    groups: Sequence[AltGroup],
    features: frozenset[int],
    padding: Rewriting,
) -> tuple[PlannedSite, ...]:
    """Work out every site's bytes.

    Args:
        image: the kernel.
        ctx: its table, as filled, and its nops.
        patch: what decides which call an op's becomes.
        sites: the sites, in the order of their section.
        groups: alternatives to follow afterwards, in the order of theirs.
        features: numbers of the CPU features that are there.
        padding: how alternatives are filled up.

    Raises:
        ImageError: a site that cannot be patched, such as one whose target is out of reach.
    """
    text = Text(image)
    # Originals first: what the steps write must not be taken for what was built.
    originals = [text.read(site.address, site.length) for site in sites]
    calls = calls_of_ops(image, ctx, patch, sites)
    # A kernel of 6.8 and later makes such a call while it follows alternatives, in one step.
    one_step = {group.address for group in groups if group.direct}
    stages: list[bytes | None] = []
    for site, original in zip(sites, originals, strict=True):
        code = None if site.address in one_step else _call(image, ctx, patch, site, original)
        if code is not None:
            text.write(site.address, code)
        stages.append(code)
    applied = apply_groups(image, text, groups, features, padding, calls)
    inlined = {each.group.address for each in applied if each.chosen is not None and not each.chosen.direct}
    finals = [text.read(site.address, site.length) for site in sites]
    return tuple(
        PlannedSite(site, original, paravirt, final, site.address in inlined if paravirt is None else final != paravirt)
        for site, original, paravirt, final in zip(sites, originals, stages, finals, strict=True)
    )


def apply_groups(
    image: KernelImage,
    text: Text,
    groups: Sequence[AltGroup],
    features: frozenset[int],
    padding: Rewriting,
    calls: Calls,
) -> tuple[PlannedGroup, ...]:
    """Follow alternatives in a text, as ``apply_alternatives`` does.

    Args:
        image: the kernel, for errors.
        text: its text, which changes.
        groups: in the order of their section.
        features: numbers of the CPU features that are there; the one that all CPUs have need not be among them.
        padding: the kernel's way of filling places.
        calls: what becomes of calls of ops.

    Raises:
        ImageError: a replacement that cannot be moved to its place, or a call that cannot be made.
    """
    there = features | {ALWAYS}
    planned = []
    for group in groups:
        original, chosen = text.read(group.address, group.length), group.chosen(there)
        if chosen is None:
            # optimize_nops is run on every place, replaced or not.
            final = padding.optimize(original)
        elif chosen.direct:
            final = calls(group, original)
        else:
            final = _replaced(image, text, group, chosen, padding)
        text.write(group.address, final)
        planned.append(PlannedGroup(group, original, chosen, final))
    return tuple(planned)


def _replaced(image: KernelImage, text: Text, group: AltGroup, entry: AltEntry, padding: Rewriting) -> bytes:
    try:
        code = text.read(entry.replacement, entry.replacement_length)
        # The place is as long as its longest entry, and what this one leaves of it becomes nops.
        whole = entry if entry.length == group.length else attrs.evolve(entry, length=group.length)
        return replace(whole, code, padding)
    except PatchError as failure:
        raise entry.error(image, "repl", str(failure)) from failure


def calls_of_ops(image: KernelImage, ctx: PatchContext, patch: Patcher, sites: Sequence[SiteRecord]) -> Calls:
    """What becomes of the places that are sites, for :func:`apply_groups`."""
    by_address = {site.address: site for site in sites}
    return lambda group, original: _call(image, ctx, patch, by_address[group.address], original)


def _call(image: KernelImage, ctx: PatchContext, patch: Patcher, site: SiteRecord, original: bytes) -> bytes:
    try:
        return patch_site(ctx, patch, site.type, site.clobbers, original, site.address)
    except PatchError as failure:
        raise site.error(image, "instr", str(failure)) from failure

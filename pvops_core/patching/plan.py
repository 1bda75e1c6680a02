"""A patch plan: for every site its bytes as built, after the paravirt step and after alternatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import PatchError
from pvops_core.patching.alternatives import AltEntry, Padding, replace
from pvops_core.patching.default import patch_site
from pvops_core.patching.sites import SiteRecord, site_error
from pvops_core.patching.text import Text

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.patching.context import PatchContext, Patcher


@attrs.frozen
class PlannedSite:
    """One site and what becomes of it.

    Attributes:
        site: its record.
        original: its bytes as built.
        paravirt: after the paravirt step.
        final: after alternatives.
    """

    site: SiteRecord
    original: bytes
    paravirt: bytes
    final: bytes


def make_plan(
    image: KernelImage,
    ctx: PatchContext,
    patch: Patcher,
    sites: Sequence[SiteRecord],
    alternatives: Sequence[AltEntry],
    features: frozenset[int],
    padding: Padding,
) -> tuple[PlannedSite, ...]:
    """Work out every site's bytes.

    Args:
        image: the kernel.
        ctx: its table, as filled, and its nops.
        patch: what decides in the paravirt step.
        sites: the sites, in the order of their section.
        alternatives: entries to follow afterwards, in the order of theirs.
        features: numbers of the CPU features that are there.
        padding: how alternatives are filled up.

    Raises:
        ImageError: a site that cannot be patched, such as one whose target is out of reach.
    """
    text = Text(image)
    stages: list[tuple[bytes, bytes]] = []
    for index, site in enumerate(sites):
        original = text.read(site.address, site.length)
        try:
            code = patch_site(ctx, patch, site.type, site.clobbers, original, site.address)
        except PatchError as failure:
            raise site_error(image, index, "instr", str(failure)) from failure
        text.write(site.address, code)
        stages.append((original, code))
    for entry in alternatives:
        if entry.applies(features):
            text.write(entry.address, replace(entry, text.read(entry.replacement, entry.replacement_length), padding))
        else:
            text.write(entry.address, padding.optimize(text.read(entry.address, entry.length)))
    return tuple(
        PlannedSite(site, original, paravirt, text.read(site.address, site.length))
        for site, (original, paravirt) in zip(sites, stages, strict=True)
    )

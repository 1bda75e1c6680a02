"""Static patching of a real kernel: what its text is after its own ``alternative_instructions()``.

The order is the kernel's (arch/x86/kernel/alternative.c): ``paravirt_set_cap``, up to 6.7 ``apply_paravirt``, then
``apply_alternatives``, of which only the entries that touch a site are followed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import attrs
import numpy as np

from pvops_core.errors import ImageError, UsageError
from pvops_core.patching.altinstructions.alternatives import FEATURES, AltGroup, grouped, overlapping, read_alternatives
from pvops_core.patching.code.nops import USUAL
from pvops_core.patching.code.padding import kernel_padding, old_padding
from pvops_core.patching.context import PatchContext
from pvops_core.patching.fills import (
    BUG_NAMES,
    SPIN_UNLOCK,
    VCPU_IS_PREEMPTED,
    KernelFill,
    find_bug,
    find_nop,
    resolve,
)
from pvops_core.patching.locks import LockPrefixes, read_locks
from pvops_core.patching.ownpatch import OwnPatch, heeds_clobbers, own_patch
from pvops_core.patching.patchdefault import BRANCH_SIZE, patch_default
from pvops_core.patching.plan import PlannedGroup, PlannedSite, make_plan
from pvops_core.patching.sites import SECTION, SiteRecord, read_sites
from pvops_core.patching.tables import find_table

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.machine.cpu.model.identity import CpuIdentity
    from pvops_core.ops import Layout, Slot
    from pvops_core.patching.code.padding import Rewriting

SETS_FEATURE: Final[Mapping[str, tuple[str, str]]] = {
    SPIN_UNLOCK: ("__raw_callee_save___native_queued_spin_unlock", "PVUNLOCK"),
    VCPU_IS_PREEMPTED: ("__raw_callee_save___native_vcpu_is_preempted", "VCPUPREEMPT"),
}
"""What ``paravirt_set_cap`` looks at: a slot, the native thunk, and the feature forced where the slot has another."""

PatchStep: TypeAlias = Literal["paravirt", "final"]
CallKind: TypeAlias = Literal["call", "nop", "bug"]


@attrs.frozen(eq=False)
class ParavirtKernel:
    """A kernel with paravirt sites, read and checked, ready to be planned for any backend.

    Attributes:
        image: the kernel.
        layout: the layout of its table.
        sites: its call sites.
        groups: the ALTERNATIVEs that touch a site.
        slot_addresses: virtual address of each slot, by type number.
        compiled: the table as linked, by type number: what bare metal starts with.
        nop_address: its function that does nothing; -1 where its symbols do not name it.
        bug_address: what it calls in place of an empty slot; 0 where its symbols do not name it.
        padding: its nops, and how it fits replacements into their places.
        locks: its lock prefixes, which one CPU does not need; None where it does not say where they are.
        own: the slot of its own patch op, to 5.12; None in a kernel that patches by one fixed rule.
    """

    image: KernelImage
    layout: Layout
    sites: tuple[SiteRecord, ...]
    groups: tuple[AltGroup, ...]
    slot_addresses: tuple[int, ...]
    compiled: tuple[int, ...]
    nop_address: int
    bug_address: int
    padding: Rewriting
    locks: LockPrefixes | None
    own: Slot | None = None


def read_kernel(image: KernelImage) -> ParavirtKernel:
    """Read everything about a kernel's sites that does not depend on the backend.

    Raises:
        ImageError: a section, table or site is damaged, the kernel has no paravirt sites, or it is of a generation
            that cannot be patched statically.
    """
    sites = read_sites(image)
    # Without sites there is nothing to plan; the message names both sections, since kernels of either age may lack
    # theirs.
    if not sites:
        message = "annotates no call of an op: it has none, or was built without PARAVIRT"
        raise ImageError(message, image.path, field=f"{SECTION} or .altinstructions")
    table = find_table(image, sites)
    first = sites[table.first[0]]
    # To 5.12 the table has a patch op; since, kernels patch by one fixed rule, and always call.
    own = next((slot for slot in table.layout.slots if slot.op.name == "patch"), None)
    # A table in two pieces has holes, whose slots no site can name.
    if len(table.slots) != len(table.layout.slots):
        raise first.error(image, "instr", f"calls through a {table.layout.name} table, which is not in one piece")
    # A kernel without a patch op always writes a call of five bytes.
    for site in sites if own is None else ():
        if site.length < BRANCH_SIZE:
            raise site.error(image, "len", f"is {site.length}; a call needs {BRANCH_SIZE}")
    spans = [(site.address, site.address + site.length) for site in sites]
    every = grouped(read_alternatives(image))
    groups = tuple(overlapping(every, spans))
    addresses = tuple(table.slots[number] for number in range(len(table.layout.slots)))
    return ParavirtKernel(
        image=image,
        layout=table.layout,
        sites=sites,
        groups=groups,
        slot_addresses=addresses,
        # What is compiled in is what bare metal gets, and what a platform's fill begins with.
        compiled=tuple(image.pointers(address, 1)[0] for address in addresses),
        nop_address=find_nop(image) or -1,
        bug_address=find_bug(image) or 0,
        padding=kernel_padding(image, direct=any(group.direct for group in groups))
        if own is None
        else old_padding(image, USUAL),
        locks=read_locks(image, every),
        own=own,
    )


def fill_table(kernel: ParavirtKernel, fills: Sequence[KernelFill], cpus: int) -> tuple[int, ...]:
    """The table as the kernel has it when it patches itself, by type number; 0 is an empty slot.

    Args:
        kernel: the kernel.
        fills: the backend's and before it its bases', the innermost base first.
        cpus: number of CPUs that the kernel sees.

    Raises:
        ImageError: the kernel lacks a symbol that a fill needs.
        UsageError: a fill names an op that the layout has not got.
    """
    table = list(kernel.compiled)
    for fill in fills:
        for path, target in fill.slots(kernel.image, kernel.layout, cpus).items():
            table[kernel.layout.by_path(path).type] = resolve(kernel.image, path, target)
    return tuple(table)


def forced_features(
    kernel: ParavirtKernel, table: Sequence[int], fills: Sequence[KernelFill], cpus: int
) -> frozenset[int]:
    """Numbers of the CPU features forced on: by the platforms' code, and by ``paravirt_set_cap`` from the table.

    Raises:
        UsageError: a fill names a feature that is none of :data:`FEATURES`.
    """
    names = {name for fill in fills for name in fill.features(kernel.image, cpus)}
    for path, (native, feature) in SETS_FEATURE.items():
        # paravirt_set_cap compares pointers, so a fill that keeps the native thunk sets no feature.
        slot = next((slot for slot in kernel.layout.slots if slot.path == path), None)
        thunk = kernel.image.symbols.get(native)
        if slot is not None and thunk is not None and table[slot.type] != thunk:
            names.add(feature)
    unknown = sorted(names - FEATURES.keys())
    if unknown:
        raise UsageError(f"no CPU feature {unknown[0]!r} can be forced; known are {', '.join(FEATURES)}")
    return frozenset(FEATURES[name] for name in names)


@attrs.frozen(eq=False)
class KernelPlan:
    """What a kernel makes of its sites on a platform.

    Attributes:
        kernel: the kernel.
        table: its table when it patches itself; see :func:`fill_table`.
        features: the CPU features forced on; see :func:`forced_features`.
        sites: every site, in the order of its section.
        context: what the sites were patched by.
    """

    kernel: ParavirtKernel
    table: tuple[int, ...]
    features: frozenset[int]
    sites: tuple[PlannedSite, ...]
    context: PatchContext

    @property
    def steps(self) -> tuple[PatchStep, ...]:
        """The steps that the kernel takes, by the attribute of :class:`PlannedSite` that has their bytes."""
        return ("paravirt", "final") if any(site.paravirt is not None for site in self.sites) else ("final",)

    def kind(self, type: int) -> CallKind:
        """What direct calling makes of the calls of an op: ``"call"``, ``"nop"``, or ``"bug"`` for an empty slot."""
        target = self.table[type]
        if not target:
            return "bug"
        return "nop" if target == self.kernel.nop_address else "call"


def plan_kernel(
    kernel: ParavirtKernel, fills: Sequence[KernelFill], cpus: int, identity: CpuIdentity | None = None
) -> KernelPlan:
    """Plan and apply all of a kernel's sites.

    Args:
        kernel: the kernel, as :func:`read_kernel` gave it.
        fills: see :func:`fill_table`.
        cpus: number of CPUs that the kernel sees.
        identity: whose they are, which decides about nops to 5.12; the platform's usual ones unless given.

    Raises:
        ImageError: the kernel cannot run on this platform, or a site cannot be patched.
        UsageError: a fill names an op or a feature that there is not.
    """
    # Before 5.13 which nops are used is asked of the processor, of which a platform may show another.
    if kernel.own is not None:
        shown = identity or USUAL
        for fill in fills:
            shown = getattr(fill, "processor", _as_it_is)(kernel.image, shown)
        kernel = attrs.evolve(kernel, padding=old_padding(kernel.image, shown))
    table = fill_table(kernel, fills, cpus)
    # An empty slot's call becomes a call of paravirt_BUG, which must be there then.
    if kernel.own is None and 0 in (table[site.type] for site in kernel.sites):
        _require_bug(kernel)
    ctx = PatchContext(
        layout=kernel.layout,
        targets=table,
        nop_address=kernel.nop_address,
        bug_address=kernel.bug_address,
        nops=kernel.padding.nops,
        symbols=kernel.image.symbols,
        any_register=_any_register(kernel),
    )
    features = forced_features(kernel, table, fills, cpus)
    patch = patch_default if kernel.own is None else own_patch(kernel.image, kernel.own, table[kernel.own.type])
    sites = make_plan(kernel.image, ctx, patch, kernel.sites, kernel.groups, features, kernel.padding)
    # The plan says which sites ended up inlined: of old kernels only their own patch op knows.
    if isinstance(patch, OwnPatch):
        names = [slot.op.name for slot in kernel.layout.slots]
        sites = tuple(
            attrs.evolve(each, inlined=patch.inlines(names[each.site.type], each.site.address, each.final))
            for each in sites
        )
    return KernelPlan(kernel, table, features, sites, ctx)


def _as_it_is(_kernel: KernelImage, identity: CpuIdentity) -> CpuIdentity:
    return identity


def _any_register(kernel: ParavirtKernel) -> int:
    """The kernel's CLBR_ANY, which calls of plain C functions have: every register that any site lets be destroyed.

    0 where its patch op makes a call whatever that destroys.
    """
    found = 0
    if kernel.own is None or not heeds_clobbers(kernel.image):
        return found
    # CLBR_ANY differs by age and width; its meaning is every register that any site lets go.
    for site in kernel.sites:
        found |= site.clobbers
    return found


def _require_bug(kernel: ParavirtKernel) -> None:
    if not kernel.bug_address:
        raise kernel.image.error(f"the kernel has no symbol {' or '.join(BUG_NAMES)}", field="symbols")


def apply_plan(plan: KernelPlan, data: bytearray, groups: Sequence[PlannedGroup] = (), cpus: int = 2) -> None:
    """Put final bytes into a copy of the unpacked image; nothing else changes.

    Args:
        plan: what becomes of the sites.
        data: the copy.
        groups: what becomes of other places with alternatives.
        cpus: number of CPUs that the kernel sees: lock prefixes go if there is one.

    Raises:
        ImageError: a place is in no segment of the file, so that no loader would see it.
    """
    image = plan.kernel.image
    # Groups first: a site's final bytes include what alternatives did to it.
    places = [(planned.group.address, planned.final) for planned in groups]
    places += [(planned.site.address, planned.final) for planned in plan.sites]
    for address, code in places:
        offset = image.offset_of(address, len(code))
        data[offset : offset + len(code)] = code
    locks = plan.kernel.locks
    if locks is not None:
        # All lock prefixes at once, by offsets into the file: a kernel has ten thousand.
        offsets = image.offsets_of(np.array(locks.addresses, np.uint64))
        np.frombuffer(data, np.uint8)[offsets] = locks.byte(cpus)


def patched_image(plan: KernelPlan, groups: Sequence[PlannedGroup] = (), cpus: int = 2) -> bytes:
    """The unpacked image as the kernel has patched it; ImageError as for :func:`apply_plan`."""
    data = bytearray(plan.kernel.image.data)
    apply_plan(plan, data, groups, cpus)
    return bytes(data)

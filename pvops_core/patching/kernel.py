"""Static patching of a real kernel: what its text is after its own ``alternative_instructions()``.

The order is the kernel's (arch/x86/kernel/alternative.c, 6.1): ``paravirt_set_cap``, ``apply_paravirt``, then
``apply_alternatives``, of which only the entries that touch a site are followed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import ImageError, UsageError
from pvops_core.patching.alternatives import FEATURES, AltEntry, Padding, overlapping, read_alternatives
from pvops_core.patching.context import PatchContext
from pvops_core.patching.default import BRANCH_SIZE, patch_default
from pvops_core.patching.disasm import instruction_lengths
from pvops_core.patching.fills import SPIN_UNLOCK, VCPU_IS_PREEMPTED, KernelFill, find_nop, required, resolve
from pvops_core.patching.nops import kernel_nops
from pvops_core.patching.plan import PlannedSite, make_plan
from pvops_core.patching.sites import SECTION, SiteRecord, read_sites, site_error
from pvops_core.patching.tables import SiteTable, find_table

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.ops import Layout

TABLE: Final = "pv_ops"
"""The table since 4.20. Up to 5.11 it has a ``patch`` op; from 5.12 on kernels patch by one fixed rule."""

BUG: Final = "paravirt_BUG"

SETS_FEATURE: Final[Mapping[str, tuple[str, str]]] = {
    SPIN_UNLOCK: ("__raw_callee_save___native_queued_spin_unlock", "PVUNLOCK"),
    VCPU_IS_PREEMPTED: ("__raw_callee_save___native_vcpu_is_preempted", "VCPUPREEMPT"),
}
"""What ``paravirt_set_cap`` looks at: a slot, the native thunk, and the feature forced where the slot has another."""


@attrs.frozen(eq=False)
class ParavirtKernel:
    """A kernel with paravirt sites, read and checked, ready to be planned for any backend.

    Attributes:
        image: the kernel.
        layout: the layout of its table.
        sites: its call sites.
        alternatives: the ALTERNATIVE entries that touch a site.
        table_address: virtual address of its table.
        compiled: the table as linked, by type number: what bare metal starts with.
        nop_address: its function that does nothing; -1 where its symbols do not name it.
        bug_address: ``paravirt_BUG``; 0 where its symbols do not name it.
        padding: its nops.
    """

    image: KernelImage
    layout: Layout
    sites: tuple[SiteRecord, ...]
    alternatives: tuple[AltEntry, ...]
    table_address: int
    compiled: tuple[int, ...]
    nop_address: int
    bug_address: int
    padding: Padding


def read_kernel(image: KernelImage) -> ParavirtKernel:
    """Read everything about a kernel's sites that does not depend on the backend.

    Raises:
        ImageError: a section, table or site is damaged, the kernel has no paravirt sites, or it is of a generation
            that cannot be patched statically.
    """
    sites = read_sites(image)
    if not sites:
        raise ImageError(
            "is not there: the kernel was built without PARAVIRT, or is 6.8 or later", image.path, field=SECTION
        )
    table = find_table(image, sites)
    if any(slot.symbol != TABLE or slot.op.name == "patch" for slot in table.layout.slots):
        message = f"calls through a {table.layout.name} table, whose own patch op decides: run it instead"
        raise site_error(image, table.first[0], "instr", message)
    for index, site in enumerate(sites):
        if site.length < BRANCH_SIZE:
            raise site_error(image, index, "len", f"is {site.length}; a call needs {BRANCH_SIZE}")
    spans = [(site.address, site.address + site.length) for site in sites]
    nops = kernel_nops(image)
    return ParavirtKernel(
        image=image,
        layout=table.layout,
        sites=sites,
        alternatives=tuple(overlapping(read_alternatives(image), spans)),
        table_address=(base := _base(image, table)),
        compiled=image.pointers(base, len(table.layout.slots)),
        nop_address=find_nop(image) or -1,
        bug_address=image.symbols.get(BUG, 0),
        padding=Padding(nops, partial(instruction_lengths, bits=8 * image.pointer_size)),
    )


def _base(image: KernelImage, table: SiteTable) -> int:
    """Where the table is: all sites agree on that, and the symbol where there is one."""
    size = image.pointer_size
    index, site_type = table.first
    base = table.slots[site_type] - site_type * size
    for type_, address in table.slots.items():
        if address - type_ * size != base:
            message = (
                f"calls through {address:#x}; type {type_} of the table at {base:#x} is at {base + type_ * size:#x}"
            )
            raise site_error(image, table.seen[type_], "type", message)
    named = image.symbols.get(TABLE, base)
    if named != base:
        raise site_error(image, index, "type", f"puts the table at {base:#x}, but {TABLE} is at {named:#x}")
    return base


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
    """

    kernel: ParavirtKernel
    table: tuple[int, ...]
    features: frozenset[int]
    sites: tuple[PlannedSite, ...]

    def kind(self, type: int) -> str:
        """What the paravirt step makes of the calls of an op: ``"call"``, ``"nop"``, or ``"bug"`` for an empty slot."""
        target = self.table[type]
        if not target:
            return "bug"
        return "nop" if target == self.kernel.nop_address else "call"


def plan_kernel(kernel: ParavirtKernel, fills: Sequence[KernelFill], cpus: int) -> KernelPlan:
    """Plan and apply all of a kernel's sites.

    Args:
        kernel: the kernel, as :func:`read_kernel` gave it.
        fills: see :func:`fill_table`.
        cpus: number of CPUs that the kernel sees.

    Raises:
        ImageError: the kernel cannot run on this platform, or a site cannot be patched.
        UsageError: a fill names an op or a feature that there is not.
    """
    table = fill_table(kernel, fills, cpus)
    if 0 in (table[site.type] for site in kernel.sites):
        required(kernel.image, BUG)
    ctx = PatchContext(
        layout=kernel.layout,
        targets=table,
        nop_address=kernel.nop_address,
        bug_address=kernel.bug_address,
        nops=kernel.padding.nops,
        symbols=kernel.image.symbols,
    )
    features = forced_features(kernel, table, fills, cpus)
    sites = make_plan(kernel.image, ctx, patch_default, kernel.sites, kernel.alternatives, features, kernel.padding)
    return KernelPlan(kernel, table, features, sites)


def apply_plan(plan: KernelPlan, data: bytearray) -> None:
    """Put every site's final bytes into a copy of the unpacked image; nothing else changes.

    Raises:
        ImageError: a site is in no segment of the file, so that no loader would see it.
    """
    image = plan.kernel.image
    for planned in plan.sites:
        offset = image.offset_of(planned.site.address, planned.site.length)
        data[offset : offset + planned.site.length] = planned.final


def patched_image(plan: KernelPlan) -> bytes:
    """The unpacked image as the kernel has patched it; ImageError as for :func:`apply_plan`."""
    data = bytearray(plan.kernel.image.data)
    apply_plan(plan, data)
    return bytes(data)

"""An audit of the frame table: counts every reference again from what holds it, and compares.

Nothing here is used to run a guest. It reads page tables, pins, roots, descriptor tables and registered areas afresh,
so a reference that was forgotten, or taken twice, shows as a finding that names the frame.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

import attrs
import numpy as np
import numpy.typing as npt

from pvops_core.errors import MachineError
from pvops_xen.hypervisor.abi import FIRST_RESERVED_GDT_PAGE, PAGE_SHIFT, PAGE_SIZE
from pvops_xen.hypervisor.grants.state import GntMap
from pvops_xen.hypervisor.memory import entries as pte
from pvops_xen.hypervisor.memory.frames import ALLOCATED, FREE, GUEST, PAE_XEN_L2, PINNED, VALIDATED, XEN, FrameType
from pvops_xen.hypervisor.memory.mmuext import root_type
from pvops_xen.hypervisor.memory.validate import FIRST_XEN_L4_SLOT, LAST_XEN_L4_SLOT
from pvops_xen.hypervisor.processor.descriptors import is_descriptor_page
from pvops_xen.hypervisor.processor.segments import LDT_PAGE, WINDOW_PAGES

if TYPE_CHECKING:
    from pvops_xen.hypervisor.core import Hypervisor
    from pvops_xen.hypervisor.state import XenVcpuState

Table = npt.NDArray[np.uint64]
_TABLES: Final = (FrameType.L1, FrameType.L2, FrameType.L3, FrameType.L4)
_ENTRIES: Final = PAGE_SIZE // 8


@attrs.frozen
class FrameReference:
    """One reference to a frame.

    Attributes:
        mfn: machine frame.
        kind: type that it is held as; None for a general reference alone.
        who: the holder, for people.
    """

    mfn: int
    kind: FrameType | None
    who: str


@attrs.frozen
class Finding:
    """Something that the model keeps and the recount sees otherwise.

    Attributes:
        mfn: machine frame; -1 where it is about none.
        text: what is wrong.
    """

    mfn: int
    text: str

    def __str__(self) -> str:
        """One line."""
        return self.text if self.mfn < 0 else f"mfn {self.mfn:x}: {self.text}"


Holder = Callable[["Hypervisor"], Iterable[FrameReference]]


# --- who holds frames without being a page table ---------------------------------------------------------------------


def _allocations(hv: Hypervisor) -> Iterator[FrameReference]:
    """The domain's own reference of each of its frames, and a pin's."""
    frames = hv.frames
    for mfn, flags in enumerate(frames.flags):
        if flags & ALLOCATED:
            yield FrameReference(mfn, None, "allocation")
        if flags & PINNED:
            yield FrameReference(mfn, FrameType(frames.kind[mfn]), "pin")


def _shared_info(hv: Hypervisor) -> Iterator[FrameReference]:
    """shared_info is Xen's own, and held writable for ever: it never becomes a page table."""
    yield FrameReference(hv.domain.shared_info >> PAGE_SHIFT, FrameType.WRITABLE, "Xen")


def _vcpus(hv: Hypervisor) -> Iterator[FrameReference]:
    root = root_type(hv.abi.bits)
    for state in hv.domain.vcpus:
        who = f"vCPU {state.index}'s"
        if state.guest_table:
            yield FrameReference(state.guest_table, root, f"{who} root")
        if state.guest_table_user:
            yield FrameReference(state.guest_table_user, root, f"{who} user root")
        if state.info_registered:
            yield FrameReference(state.info >> PAGE_SHIFT, FrameType.WRITABLE, f"{who} vcpu_info")
        for mfn in (*state.gdt_frames, *state.ldt_mapped.values()):
            # Each page of a descriptor table holds a reference as long as it is in the window, the LDT's only since
            # it was touched.
            yield FrameReference(mfn, FrameType.SEG_DESC, f"{who} descriptors")


def _grants(hv: Hypervisor) -> Iterator[FrameReference]:
    """The table's own frames, what dom0 keeps mapped, and mappings for devices; those for processors are entries."""
    grants = hv.domain.grants
    for mfn in (*grants.frames, *grants.status):
        yield FrameReference(mfn, FrameType.WRITABLE, "Xen's grant table")
    for active in grants.active.values():
        # A grant that dom0 maps is held for as long as dom0 has it mapped (``struct active_grant_entry``).
        if active.domid == 0:
            yield FrameReference(active.mfn, FrameType.WRITABLE, "dom0")
    for mapping in grants.mappings.values():
        # Mapped for processors, a grant is an L1 entry and counted as one.
        if mapping.flags & GntMap.DEVICE_MAP:
            kind = None if mapping.flags & GntMap.READONLY else FrameType.WRITABLE
            yield FrameReference(grants.active[mapping.ref].mfn, kind, "a grant mapped for devices")


def _fifo(hv: Hypervisor) -> Iterator[FrameReference]:
    """Event words and control blocks."""
    fifo = hv.domain.fifo
    if fifo is not None:
        for mfn in (*fifo.array, *(address >> PAGE_SHIFT for address in fifo.control.values())):
            yield FrameReference(mfn, FrameType.WRITABLE, "event channels")


def _eoi(hv: Hypervisor) -> Iterator[FrameReference]:
    if hv.domain.eoi_frame:
        yield FrameReference(hv.domain.eoi_frame, FrameType.WRITABLE, "physdev_op")


HOLDERS: Final[tuple[Holder, ...]] = (_allocations, _shared_info, _vcpus, _grants, _fifo, _eoi)
"""Everything but page tables that takes references. A module that takes more adds its function here."""


# --- the recount -----------------------------------------------------------------------------------------------------


class _Recount:
    """References found so far: columns over machine frames."""

    def __init__(self, hv: Hypervisor) -> None:
        self.hv = hv
        count = len(hv.frames)
        self.refs = np.zeros(count, dtype=np.int64)
        self.types = np.zeros(count, dtype=np.int64)
        self.linear: Counter[int] = Counter()
        self.kinds: defaultdict[int, Counter[FrameType]] = defaultdict(Counter)
        self.findings: list[Finding] = []

    def find(self, mfn: int, text: str) -> None:
        self.findings.append(Finding(mfn, text))

    def hold(self, hold: FrameReference) -> None:
        """Count a reference of something that is no page table."""
        self.refs[hold.mfn] += 1
        if hold.kind is not None:
            self.types[hold.mfn] += 1
            self.expect(hold.mfn, hold.kind, hold.who)

    def expect(self, mfn: int, kind: FrameType, who: str) -> None:
        """A frame that is referred to as a type has that type."""
        if self.hv.frames.kind[mfn] != kind:
            self.find(mfn, f"{who} holds it as {kind.name}, it is {FrameType(self.hv.frames.kind[mfn]).name}")

    def targets(self, mfn: int, entries: Table, who: str) -> Table:
        """Frames that present entries name; those which the guest does not own are findings."""
        named = (entries & np.uint64(pte.ADDRESS)) >> np.uint64(PAGE_SHIFT)
        owner = np.frombuffer(self.hv.frames.owner, dtype=np.uint8)
        known = named < len(owner)
        for each in named[~known]:
            self.find(mfn, f"{who} names frame {int(each):x}, which does not exist")
        named = named[known]
        for each in named[owner[named] != GUEST]:
            self.find(int(each), f"{who} of mfn {mfn:x} names it, and it is not the guest's")
        return named

    def leaf(self, mfn: int, entries: Table) -> None:
        """Count what a first-level table maps: a writable mapping needs the writable type."""
        kind = np.frombuffer(self.hv.frames.kind, dtype=np.uint8)
        np.add.at(self.refs, self.targets(mfn, entries, "L1 entry"), 1)
        writable = self.targets(mfn, entries[entries & np.uint64(pte.RW) != 0], "writable L1 entry")
        np.add.at(self.types, writable, 1)
        for target in writable[kind[writable] != FrameType.WRITABLE]:
            self.find(int(target), f"mapped writable by mfn {mfn:x} while it is {FrameType(kind[target]).name}")

    def upper(self, mfn: int, level: int, entries: Table) -> None:
        """Count what an upper table names: tables of the next level, or read-only one of its own."""
        frames = self.hv.frames
        targets = self.targets(mfn, entries, f"L{level} entry")
        if len(targets) != len(entries):
            return
        for entry, target in zip(entries.tolist(), targets.tolist(), strict=True):
            # An entry of a table's own frame takes no reference: ``get_l4_linear_pagetable`` and its like return
            # early.
            if target == mfn:
                self._linear(mfn, entry, "itself")
                continue
            self.refs[target] += 1
            self.types[target] += 1
            # Linear: the referring table counts up, the one referred to down (``linear_pt_count``).
            if frames.kind[target] == level:
                self._linear(mfn, entry, f"mfn {target:x}")
                self.linear[mfn] += 1
                self.linear[target] -= 1
            else:
                self.expect(target, FrameType(level - 1), f"L{level} table {mfn:x}")

    def _linear(self, mfn: int, entry: int, what: str) -> None:
        if entry & pte.RW:
            self.find(mfn, f"writable linear entry of {what}")


def _guest_part(hv: Hypervisor, mfn: int, level: int, table: Table) -> Table:
    """Entries that the guest rules."""
    if level == FrameType.L4:
        return np.concatenate((table[:FIRST_XEN_L4_SLOT], table[LAST_XEN_L4_SLOT + 1 :]))
    if level == FrameType.L3 and hv.abi.bits == 32:
        # Only four entries of a PAE root are the processor's.
        return table[:4]
    if level == FrameType.L2 and hv.frames.flags[mfn] & PAE_XEN_L2:
        return table[: hv.validator.slots.first_l2]
    return table


def _count_tables(count: _Recount) -> None:
    hv, frames = count.hv, count.hv.frames
    words = hv.memory.array.view("<u8").reshape(-1, _ENTRIES)
    for mfn in range(len(frames)):
        kind = frames.in_use_as(mfn)
        if kind not in _TABLES:
            continue
        table = words[mfn]
        mine = _guest_part(hv, mfn, kind, table)
        present = mine[mine & np.uint64(pte.P) != 0]
        bad = pte.disallowed(kind, hv.abi.bits)
        for entry in present[present & np.uint64(bad) != 0]:
            count.find(mfn, f"L{int(kind)} entry {int(entry):#x} has forbidden flags {int(entry) & bad:#x}")
        # Every page of a 64-bit guest is a user page to the processor, so an entry without the flag was never
        # adjusted.
        if hv.abi.bits == 64 and (present & np.uint64(pte.USER) == 0).any():
            count.find(mfn, f"an L{int(kind)} entry without the user flag")
        if kind == FrameType.L1:
            count.leaf(mfn, present)
        else:
            count.upper(mfn, int(kind), present)
        _check_xen_part(count, mfn, kind, table)


def _check_xen_part(count: _Recount, mfn: int, kind: FrameType, table: Table) -> None:
    """Xen's own entries are what Xen put there."""
    hv, slots = count.hv, count.hv.validator.slots
    if kind == FrameType.L4:
        first, last, wanted = FIRST_XEN_L4_SLOT, LAST_XEN_L4_SLOT + 1, slots.l4
    elif kind == FrameType.L3 and hv.abi.bits == 32:
        first, last, wanted = 4, _ENTRIES, {}
    elif kind == FrameType.L2 and hv.frames.flags[mfn] & PAE_XEN_L2:
        first, last, wanted = slots.first_l2, _ENTRIES, slots.l2
    else:
        return
    accessed = ~(pte.A | pte.D)  # the processor's own
    for slot in range(first, last):
        if (int(table[slot]) ^ wanted.get(slot, 0)) & accessed:
            count.find(mfn, f"slot {slot} holds {int(table[slot]):#x}, Xen's is {wanted.get(slot, 0):#x}")


# --- what must agree -------------------------------------------------------------------------------------------------


def _compare(count: _Recount) -> None:
    frames = count.hv.frames
    kept_refs = np.asarray(frames.refs, dtype=np.int64)
    kept_types = np.asarray(frames.types, dtype=np.int64)
    owner = np.frombuffer(frames.owner, dtype=np.uint8)
    xens = owner == XEN  # Xen's frames have the one reference that it gave itself
    for mfn in np.flatnonzero((kept_refs != count.refs) & ~xens).tolist():
        count.find(mfn, f"{kept_refs[mfn]} references kept, {count.refs[mfn]} found")
    for mfn in np.flatnonzero(kept_types != count.types).tolist():
        count.find(mfn, f"{kept_types[mfn]} type references kept, {count.types[mfn]} found")
    for mfn in range(len(frames)):
        # What is not in use keeps the number of its last use.
        if frames.linear[mfn] != count.linear[mfn] and frames.types[mfn]:
            count.find(mfn, f"linear count {frames.linear[mfn]} kept, {count.linear[mfn]} found")
        _check_flags(count, mfn)


def _check_flags(count: _Recount, mfn: int) -> None:
    frames = count.hv.frames
    flags, kind, types = frames.flags[mfn], frames.kind[mfn], frames.types[mfn]
    if types and not flags & VALIDATED:
        count.find(mfn, f"in use as {FrameType(kind).name} without having been validated")
    if flags & PINNED and (not types or kind not in _TABLES):
        count.find(mfn, f"pinned with {types} type references as {FrameType(kind).name}")
    if types < 0 or (types and kind == FrameType.NONE):
        count.find(mfn, f"{types} references of type {FrameType(kind).name}")
    if frames.owner[mfn] == FREE and (flags or frames.refs[mfn] or types):
        count.find(mfn, f"free with flags {flags:#x} and {frames.refs[mfn]} references")


def _check_descriptors(count: _Recount) -> None:
    """Pages of descriptors hold what Xen would take, and the CPU's window shows these pages and no others."""
    hv = count.hv
    for mfn in range(len(hv.frames)):
        if hv.frames.in_use_as(mfn) != FrameType.SEG_DESC:
            continue
        page = hv.memory.read(mfn << PAGE_SHIFT, PAGE_SIZE)
        if not is_descriptor_page(page, hv.abi.bits):
            count.find(mfn, "holds a descriptor that Xen refuses")
    for state in hv.domain.vcpus:
        _check_window(count, state)


def _check_window(count: _Recount, state: XenVcpuState) -> None:
    hv = count.hv
    wanted = dict(enumerate(state.gdt_frames)) | {LDT_PAGE + page: mfn for page, mfn in state.ldt_mapped.items()}
    for page in range(WINDOW_PAGES):
        if page == FIRST_RESERVED_GDT_PAGE:
            continue
        number = state.index * WINDOW_PAGES + page
        entry = hv.memory.u64(hv.perdomain_l1[number // _ENTRIES] + number % _ENTRIES * 8)
        shown = pte.frame_of(entry) if entry & pte.P else 0
        if shown != wanted.get(page, 0) or entry & (pte.RW | pte.USER):
            count.find(
                shown, f"vCPU {state.index}'s window page {page} is {entry:#x}, not frame {wanted.get(page, 0):x}"
            )


def _check_roots(count: _Recount) -> None:
    """Every vCPU that runs does so on the root of its mode; those of a domain that was crashed run no more."""
    hv = count.hv
    if hv.domain.crashed:
        return
    for cpu in hv.machine.vcpus:
        state = hv.state(cpu)
        if state.initialised and cpu.cr3 >> PAGE_SHIFT != hv.space.root(cpu.index):
            count.find(cpu.cr3 >> PAGE_SHIFT, f"vCPU {cpu.index} runs on it, its root is {hv.space.root(cpu.index):x}")


def audit(hv: Hypervisor) -> list[Finding]:
    """Recount every frame's owner, type and references: what the model keeps otherwise, an empty list if nothing."""
    count = _Recount(hv)
    for holder in HOLDERS:
        for hold in holder(hv):
            count.hold(hold)
    _count_tables(count)
    _compare(count)
    _check_descriptors(count)
    _check_roots(count)
    return count.findings


class AuditError(MachineError):
    """The frame table and what it stands for disagree: a fault of the model, not of the guest."""


def check(hv: Hypervisor) -> None:
    """Audit, and raise on the first findings.

    Raises:
        AuditError: with up to ten findings.
    """
    findings = audit(hv)
    if findings:
        raise AuditError(
            "; ".join(map(str, findings[:10])) + (f" and {len(findings) - 10} more" if findings[10:] else "")
        )

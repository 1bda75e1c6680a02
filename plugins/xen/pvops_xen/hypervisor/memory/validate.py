"""Promotion and demotion of frames: a frame becomes a page table only when everything it points to may be so used.

The rules are those of xen/arch/x86/mm.c (``get_page_type``, ``alloc_l1_table`` … ``alloc_l4_table``,
``get_page_from_l1e``, linear page tables). A table is walked once,
when it gains its type, never again while it keeps it.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import attrs

from pvops_xen.hypervisor.abi import EINVAL, PAGE_SHIFT, PAGE_SIZE
from pvops_xen.hypervisor.memory import entries as pte
from pvops_xen.hypervisor.memory.frames import PAE_XEN_L2, PINNED, VALIDATED, FrameTable, FrameType
from pvops_xen.hypervisor.policy import L1_FRAME_REFUSED, L1_IO_REFUSED
from pvops_xen.hypervisor.processor.descriptors import fix_descriptor_page

_TABLE: Final = struct.Struct("<512Q")
FIRST_XEN_L4_SLOT: Final = 256  # ROOT_PAGETABLE_FIRST_XEN_SLOT and _LAST_: Xen's 8 TiB above the canonical hole
LAST_XEN_L4_SLOT: Final = 271
_ALL_ONES_FRAME: Final = pte.ADDRESS >> PAGE_SHIFT


class TableMemory(Protocol):
    """What the validator needs of physical memory."""

    def read(self, pa: int, length: int, /) -> bytes:
        """Bytes at a machine address."""
        ...

    def write(self, pa: int, data: bytes, /) -> None:
        """Store bytes at a machine address."""
        ...

    def u64(self, pa: int, /) -> int:
        """The 64-bit word at a machine address."""
        ...

    def set_u64(self, pa: int, value: int, /) -> None:
        """Store one."""
        ...


@attrs.define
class XenSlots:
    """The entries that Xen puts into every root table (64-bit) or into the last second-level table (PAE).

    Attributes:
        l4: slot number to entry, for slots 256 to 271; those not named are cleared.
        l2: slot number to entry, for the slots from ``first_l2`` on.
        first_l2: first slot of the PAE hole, ``0xF5800000 >> 21 & 511``.
    """

    l4: Mapping[int, int] = attrs.field(factory=dict)
    l2: Mapping[int, int] = attrs.field(factory=dict)
    first_l2: int = (0xF580_0000 >> 21) & 511  # where HYPERVISOR_VIRT_START_PAE is in the last directory


def _no_log(message: str) -> None:
    del message


def _no_frame(mfn: int) -> None:
    del mfn


@attrs.define
class Validator:
    """Reference and type counting over a frame table and the memory it describes.

    Attributes:
        frames: the frame table.
        memory: machine memory.
        bits: 32 (PAE) or 64: the guest's width.
        slots: Xen's own entries.
        flush_stale: called when a frame changes type that a TLB may still map writable.
        log: takes Xen's message for a refusal.
        drop_descriptors: called when a read-only mapping of a descriptor page goes away.
        epoch: counts full TLB flushes; ``flush_stale`` moves it on.
        text: machine frame to virtual address of those whose code several processors may have translated.
        turn: which vCPU's it is to execute, as a number that changes with each (``Machine.turn``).
        opened: of such frames, the turn in which the last writable mapping came, and the table that it is in; nothing
            where Xen has written since.
        rewritten: addresses of such frames that have just lost a writable mapping: they may hold other code now; and
            whether nobody but the vCPU that executes can have written there.
    """

    frames: FrameTable
    memory: TableMemory
    bits: int
    slots: XenSlots
    flush_stale: Callable[[], None] = lambda: None
    log: Callable[[str], None] = _no_log
    drop_descriptors: Callable[[int], None] = _no_frame
    epoch: int = 0
    text: dict[int, int] = attrs.field(factory=dict)
    turn: Callable[[], int] = lambda: 0
    opened: dict[int, tuple[int, int]] = attrs.field(factory=dict)
    rewritten: dict[int, bool] = attrs.field(factory=dict)

    # --- types -----------------------------------------------------------------------------------------------------

    def get_type(self, mfn: int, kind: FrameType, *, pae_xen: bool = False) -> int:
        """``_get_page_type``: take a type reference, validating what an unused frame holds. 0 or a negative errno."""
        frames = self.frames
        wanted_flag = PAE_XEN_L2 if pae_xen else 0
        same = frames.kind[mfn] == kind and frames.flags[mfn] & PAE_XEN_L2 == wanted_flag
        # A type is kept while it is held: who would use the frame as something else waits until nobody does.
        if frames.types[mfn]:
            if not same:
                self._log_bad_type(mfn, kind)
                return -EINVAL
            if not frames.flags[mfn] & VALIDATED:  # it is being validated further up this very walk
                return -EINVAL
            frames.types[mfn] += 1
            return 0
        if not same:
            self._change_type(mfn, kind, wanted_flag)
        frames.types[mfn] = 1
        if kind == FrameType.WRITABLE:
            frames.flags[mfn] |= VALIDATED
        if frames.flags[mfn] & VALIDATED:
            # Validated already: the last user left it as it was, and nobody has written it since.
            return 0
        error = self._promote(mfn, kind)
        if error:
            self.log(f"Error while validating mfn {mfn:x} for type {kind.name}: {error}")
            # A failed promotion leaves the frame as it was: of no type.
            frames.types[mfn] = 0
            frames.kind[mfn] = FrameType.NONE
            frames.flags[mfn] &= ~(PAE_XEN_L2 | VALIDATED)
            return error
        frames.flags[mfn] |= VALIDATED
        return 0

    def put_type(self, mfn: int) -> None:
        """``_put_page_type``: drop a type reference; the last one demotes a page table and drops what it holds."""
        frames = self.frames
        frames.types[mfn] -= 1
        if frames.types[mfn]:
            return
        # ``tlbflush_timestamp``: when the frame was last in use as this.
        frames.stamp[mfn] = self.epoch
        # Only a table holds other frames; a writable page holds nothing.
        if FrameType.L1 <= frames.kind[mfn] <= FrameType.L4 and frames.flags[mfn] & VALIDATED:
            frames.flags[mfn] &= ~VALIDATED
            self._demote(mfn, FrameType(frames.kind[mfn]))

    def get_page_and_type(self, mfn: int, kind: FrameType, *, pae_xen: bool = False) -> int:
        """get_page_and_type_from_mfn(): general and type reference of a guest's frame, 0 or a negative errno."""
        if not self.frames.get_page(mfn):
            self.log(f"mfn {mfn:x} is not the domain's")
            return -EINVAL
        error = self.get_type(mfn, kind, pae_xen=pae_xen)
        if error:
            self.frames.put_page(mfn)
        return error

    def put_page_and_type(self, mfn: int) -> None:
        """Drop both, as Xen's own does."""
        self.put_type(mfn)
        self.frames.put_page(mfn)

    def _change_type(self, mfn: int, kind: FrameType, flag: int) -> None:
        """Give an unused frame another type; stale writable TLB entries must not outlive the change."""
        frames = self.frames
        # Nobody has flushed since it was last in use (tlbflush_filter)
        if frames.kind[mfn] != FrameType.NONE and frames.stamp[mfn] >= self.epoch:
            self.epoch += 1
            self.flush_stale()
        frames.kind[mfn] = kind
        frames.flags[mfn] = frames.flags[mfn] & ~(VALIDATED | PAE_XEN_L2 | PINNED) | flag

    def _log_bad_type(self, mfn: int, kind: FrameType) -> None:
        frames = self.frames
        held = FrameType(frames.kind[mfn])
        self.log(f"Bad type (saw {held.name} x {frames.types[mfn]} != exp {kind.name}) for mfn {mfn:x}")

    # --- tables ----------------------------------------------------------------------------------------------------

    def table(self, mfn: int) -> tuple[int, ...]:
        """The 512 entries of a frame."""
        return _TABLE.unpack(self.memory.read(mfn << PAGE_SHIFT, PAGE_SIZE))

    def is_guest_slot(self, mfn: int, level: int, slot: int) -> bool:
        """``is_guest_l4_slot``, ``is_guest_l2_slot``: the guest, and not Xen, rules this slot of the table."""
        if level == 4:
            return not FIRST_XEN_L4_SLOT <= slot <= LAST_XEN_L4_SLOT
        if level == 3 and self.bits == 32:
            return slot < 4
        if level == 2 and self.frames.flags[mfn] & PAE_XEN_L2:
            return slot < self.slots.first_l2
        return True

    def _promote(self, mfn: int, kind: FrameType) -> int:
        if kind == FrameType.SEG_DESC:
            return self._promote_descriptors(mfn)
        level = int(kind)
        table = self.table(mfn)
        for slot, entry in enumerate(table):
            if not entry & pte.P or not self.is_guest_slot(mfn, level, slot):
                continue
            error = self.get_entry(entry, level, mfn, slot)
            if error:
                self.log(f"Failure {error} in alloc_l{level}_table: slot {slot:#x}")
                # What was taken on the way down is given back, or a failed promotion would keep frames for ever.
                self._drop(table[:slot], mfn, level)
                return error
        if level == 3 and self.bits == 32:
            error = self._check_pae_root(table)
            if error:
                self._drop(table, mfn, level)
                return error
        self._store_adjusted(mfn, level, table)
        return 0

    def _check_pae_root(self, table: Sequence[int]) -> int:
        """``pae_xen_mappings_check``: the last GiB holds Xen's mappings, so it must be there, and only once."""
        last = table[3]
        if not last & pte.P:
            self.log("PAE L3 3rd slot is empty")
            return -EINVAL
        if self.frames.types[pte.frame_of(last)] != 1:
            self.log("PAE L3 3rd slot is shared")
            return -EINVAL
        return 0

    def _store_adjusted(self, mfn: int, level: int, table: Sequence[int]) -> None:
        fixed = [entry and pte.adjust(entry, level, self.bits) for entry in table]  # most slots are empty
        if level == 4:
            for slot in range(FIRST_XEN_L4_SLOT, LAST_XEN_L4_SLOT + 1):
                fixed[slot] = self.slots.l4.get(slot, 0)
        elif level == 3 and self.bits == 32:
            fixed[4:] = [0] * 508
        elif level == 2 and self.frames.flags[mfn] & PAE_XEN_L2:
            first = self.slots.first_l2
            fixed[first:] = [self.slots.l2.get(slot, 0) for slot in range(first, 512)]
        # Most tables come adjusted already: nothing is written then.
        if fixed != list(table):
            self.memory.write(mfn << PAGE_SHIFT, _TABLE.pack(*fixed))

    def _promote_descriptors(self, mfn: int) -> int:
        page = self.memory.read(mfn << PAGE_SHIFT, PAGE_SIZE)
        fixed = fix_descriptor_page(page, self.bits)
        if fixed is None:
            self.log(f"Bad descriptor in mfn {mfn:x}")
            return -EINVAL
        if fixed != page:
            self.memory.write(mfn << PAGE_SHIFT, fixed)
        return 0

    def _demote(self, mfn: int, kind: FrameType) -> None:
        self._drop(self.table(mfn), mfn, int(kind))

    def _drop(self, table: Sequence[int], mfn: int, level: int) -> None:
        for slot, entry in enumerate(table):
            if entry & pte.P and self.is_guest_slot(mfn, level, slot):
                self.put_entry(entry, level, mfn)

    # --- entries ---------------------------------------------------------------------------------------------------

    def get_entry(self, entry: int, level: int, table_mfn: int, slot: int) -> int:
        """References for what a present entry of a table at ``level`` names: 0 or a negative errno."""
        bad = entry & pte.disallowed(level, self.bits)
        if bad:
            self.log(f"Bad L{level} flags {bad:x}")
            return -EINVAL
        return self.take(entry, level, table_mfn, slot)

    def take(self, entry: int, level: int, table_mfn: int, slot: int) -> int:
        """``get_page_from_l2e`` and its like: the same for an entry whose flags have been looked at."""
        mfn = pte.frame_of(entry)
        if level == 1:
            error = self._get_mapped(entry)
            if mfn in self.text and entry & pte.RW:
                self.opened[mfn] = (self.turn(), table_mfn)
            return error
        pae_xen = level == 3 and self.bits == 32 and slot == 3
        error = self.get_page_and_type(mfn, FrameType(level - 1), pae_xen=pae_xen)
        if error == -EINVAL and not (level == 3 and self.bits == 32) and self._get_linear(entry, level, table_mfn):
            return 0
        return error

    def put_entry(self, entry: int, level: int, table_mfn: int) -> None:
        """``put_page_from_l1e`` and its like: drop the references that ``get_entry`` took for a present entry."""
        mfn = pte.frame_of(entry)
        frames = self.frames
        if level == 1:
            if entry & pte.RW:
                self.put_type(mfn)
                if mfn in self.text:
                    self.rewritten[self.text[mfn]] = self.opened.get(mfn) == (self.turn(), table_mfn)
            elif frames.kind[mfn] == FrameType.SEG_DESC and frames.types[mfn]:
                self.drop_descriptors(mfn)
            frames.put_page(mfn)
        elif mfn != table_mfn:
            if frames.kind[mfn] == level:  # a linear reference: the table and what it names are of one level
                frames.linear[mfn] += 1
                frames.linear[table_mfn] -= 1
            self.put_page_and_type(mfn)

    def _get_mapped(self, entry: int) -> int:
        """``get_page_from_l1e``: the frame must be the domain's, and a writable mapping needs the writable type."""
        mfn = pte.frame_of(entry)
        if mfn >= len(self.frames):
            self.log(f"non-privileged attempt to map MMIO space {mfn:x}")
            # ``get_page_from_l1e`` gives -EINVAL for INVALID_MFN alone, else -EPERM by its own number.
            return -EINVAL if mfn == _ALL_ONES_FRAME else L1_IO_REFUSED
        if not self.frames.get_page(mfn):
            self.log(f"Error getting mfn {mfn:x} from L1 entry {entry:016x}: not the domain's")
            return L1_FRAME_REFUSED
        # The general reference first: it is what keeps the frame there.
        if entry & pte.RW and self.get_type(mfn, FrameType.WRITABLE):
            self.log(f"Error getting mfn {mfn:x} from L1 entry {entry:016x}: not to be written")
            self.frames.put_page(mfn)
            return L1_FRAME_REFUSED
        return 0

    def _get_linear(self, entry: int, level: int, table_mfn: int) -> bool:
        """``get_l4_linear_pagetable`` and its like: a read-only entry may name a table of its own level, once."""
        # A writable entry would let the guest write the table it names.
        if entry & pte.RW:
            self.log("Attempt to create linear p.t. with write perms")
            return False
        mfn = pte.frame_of(entry)
        if mfn == table_mfn:
            return True
        frames = self.frames
        fits = frames.is_guests(mfn) and frames.types[mfn] and frames.kind[mfn] == level
        if not fits or not frames.flags[mfn] & VALIDATED or frames.flags[mfn] & PAE_XEN_L2:
            return False
        # Only one level deep: a table that others refer to must not itself refer to any
        # (``get_l2_linear_pagetable``).
        if frames.linear[table_mfn] < 0 or frames.linear[mfn] > 0:
            return False
        frames.linear[table_mfn] += 1
        frames.linear[mfn] -= 1
        frames.refs[mfn] += 1
        frames.types[mfn] += 1
        return True

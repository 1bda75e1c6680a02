"""One checked write to one page-table entry (``mod_l1_entry`` … ``mod_l4_entry`` of xen/arch/x86/mm.c)."""

from typing import Final

from pvops_xen.hypervisor.abi import EINVAL, EPERM, PAGE_MASK, PAGE_SHIFT
from pvops_xen.hypervisor.memory import entries as pte
from pvops_xen.hypervisor.memory.frames import FrameType
from pvops_xen.hypervisor.memory.validate import Validator

# While these stay, the new entry refers to what the old one did and in the same way: its references serve again.
_REFERENCES: Final = pte.ADDRESS | pte.P | pte.RW


def read_entry(validator: Validator, address: int) -> int:
    """The entry at a machine address."""
    return validator.memory.u64(address)


def modify(validator: Validator, address: int, new: int) -> int:
    """Write ``new`` to the page-table entry at a machine address, if it may be there: 0 or a negative errno.

    The frame must be in use as a page table; its level decides the checks.
    """
    level = int(validator.frames.in_use_as(address >> PAGE_SHIFT))
    return write_entry(validator, address, new, level)


def write_entry(validator: Validator, address: int, new: int, level: int, *, preserve_ad: bool = False) -> int:
    """The same to an entry of a table that is known to be in use, and at which level.

    ``preserve_ad`` keeps the accessed and dirty bits of the old entry (MMU_PT_UPDATE_PRESERVE_AD).
    """
    mfn, slot = address >> PAGE_SHIFT, (address & PAGE_MASK) >> 3
    # The guest may not even ask for what is in Xen's slots (``is_guest_l4_slot``).
    if level != FrameType.L1 and not validator.is_guest_slot(mfn, level, slot):
        validator.log(f"L{level} update in Xen-private area, slot {slot:#x}")
        return -EPERM if level == FrameType.L2 else -EINVAL
    if level == 3 and validator.bits == 32 and slot == 3:
        # It names the table with Xen's own slots, which must stay where they are.
        return -EINVAL
    old = validator.memory.u64(address)
    if new & pte.P:
        bad = new & pte.disallowed(level, validator.bits)
        if bad:
            validator.log(f"Bad L{level} flags {bad:x}")
            return -EINVAL
        # Neither frame nor rights change, so that no reference moves: Xen's own short way (``l1e_has_changed``).
        if (old ^ new) & _REFERENCES == 0:
            _store(validator, address, old, new, level, preserve_ad=preserve_ad)
            return 0
        error = validator.take(new, level, mfn, slot)
        if error:
            return error
    _store(validator, address, old, new, level, preserve_ad=preserve_ad)
    # The old frame last: its reference keeps it until nothing names it any more.
    if old & pte.P:
        validator.put_entry(old, level, mfn)
    return 0


def _store(validator: Validator, address: int, old: int, new: int, level: int, *, preserve_ad: bool) -> None:
    stored = pte.adjust(new, level, validator.bits)
    if preserve_ad:
        # MMU_PT_UPDATE_PRESERVE_AD: the processor's own marks survive an update that does not mean them.
        stored |= old & (pte.A | pte.D)
    validator.memory.set_u64(address, stored)


def write_word(validator: Validator, address: int, value: int, *, preserve_ad: bool = False) -> int:
    """``mmu_update``'s normal update: checked in a page table, plain in a frame that may be written."""
    mfn = address >> PAGE_SHIFT
    if not validator.frames.get_page(mfn):
        validator.log("Could not get page for normal update")
        return -EINVAL
    try:
        kind = validator.frames.in_use_as(mfn)
        if FrameType.L1 <= kind <= FrameType.L4:
            return write_entry(validator, address, value, int(kind), preserve_ad=preserve_ad)
        error = validator.get_type(mfn, FrameType.WRITABLE)
        if error:
            return error
        # A frame that is no table and may be written is written plainly, as a store of the guest's own would be.
        validator.memory.set_u64(address, value)
        validator.put_type(mfn)
        return 0
    finally:
        validator.frames.put_page(mfn)

"""Decisions that a hypervisor's configuration makes, each in one readable place: errors, version, features, CR4."""

from typing import Final

from pvops_xen.hypervisor.abi import EBUSY, EPERM

# get_page_from_l1e's answer where the frame is not the domain's, or may not be written (Xen up to 4.1 said -EINVAL).
L1_FRAME_REFUSED: Final = -EBUSY
# A frame beyond the machine's memory counts as memory-mapped I/O, which an unprivileged domain may not map.
L1_IO_REFUSED: Final = -EPERM

XEN_MAJOR: Final = 4
XEN_MINOR: Final = 17
EXTRAVERSION: Final = b".0"
CAPABILITIES: Final = b"xen-3.0-x86_64 xen-3.0-x86_32p "
CHANGESET: Final = b"unavailable"

# XENFEAT_*: mmu_pt_update_preserve_ad 5, highmem_assist 6, gnttab_map_avail_bits 7, memory_op_vnode_supported 13,
# direct_mapped 17, since a PV guest's frames are the machine's.
FEATURES: Final = 1 << 5 | 1 << 6 | 1 << 7 | 1 << 13 | 1 << 17
# XENFEAT_pae_pgdir_above_4gb: set for a 32-bit guest that asked for pae_extended_cr3.
FEATURE_PAE_EXTENDED_CR3: Final = 1 << 4

TSC_HZ: Final = 1_000_000_000  # one tick a virtual nanosecond: every clock agrees by construction

# CR4 (pv/domain.c): what a guest chooses (TSD DE), and what it sees of Xen's choice (PAE OSFXSR OSXMMEXCPT).
_CR4_GUEST: Final = 1 << 2 | 1 << 3
CR4_VISIBLE: Final = 1 << 5 | 1 << 9 | 1 << 10  # PAE OSFXSR OSXMMEXCPT


def guest_cr4(value: int) -> int:
    """``pv_fixup_guest_cr4``: CR4 as a guest has it that wants this value."""
    return value & _CR4_GUEST | CR4_VISIBLE


def uuid_of(domid: int) -> bytes:
    """A domain's UUID, the same in every run."""
    return bytes.fromhex("70766f70730040008000") + domid.to_bytes(6, "big")

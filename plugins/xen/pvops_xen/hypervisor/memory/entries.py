"""Page-table entries as Xen reads and adjusts them (xen/arch/x86/include/asm/page.h, mm.c).

All entries are 64 bits wide: PAE and 64-bit tables share the format.
"""

from typing import Final

P: Final = 1 << 0
RW: Final = 1 << 1
USER: Final = 1 << 2
PWT: Final = 1 << 3
PCD: Final = 1 << 4
A: Final = 1 << 5
D: Final = 1 << 6
PSE: Final = 1 << 7
GLOBAL: Final = 1 << 8
GUEST_KERNEL: Final = 1 << 52  # Xen's software bit: the guest meant a kernel page
GNTTAB: Final = 1 << 62  # _PAGE_GNTTAB: Xen's mark of a mapped grant
NX: Final = 1 << 63
ADDRESS: Final = 0x000F_FFFF_FFFF_F000  # bits 12 to 51: MAXPHYADDR is at most 52 (Intel SDM volume 3, 4.1.4)

CACHE_ATTRIBUTES: Final = PSE | PCD | PWT  # in an L1 entry bit 7 is PAT
# Xen lists GLOBAL with these; but it sets GLOBAL itself in user L1 entries, which the guest reads and gives back.
L1_DISALLOW: Final = CACHE_ATTRIBUTES | GNTTAB
UPPER_DISALLOW: Final = PWT | PCD | PSE | GLOBAL
# A PAE third-level entry has no flags in its high half, NX included (COMPAT_L3_DISALLOW_MASK).
PAE_L3_DISALLOW: Final = UPPER_DISALLOW | 0xFFF0_0000_0000_0000


def frame_of(entry: int) -> int:
    """Machine frame number that an entry names."""
    return (entry & ADDRESS) >> 12


def disallowed(level: int, bits: int) -> int:
    """L1_DISALLOW_MASK and its like: flags that a guest must not set in a present entry of this level."""
    if level == 1:
        return L1_DISALLOW
    if level == 3 and bits == 32:
        return PAE_L3_DISALLOW
    return UPPER_DISALLOW


def adjust(entry: int, level: int, bits: int) -> int:
    """What Xen stores for a guest's entry (``adjust_guest_l1e`` to ``adjust_guest_l4e``).

    Both the kernel and the processes of a 64-bit guest run in ring 3, so every present entry gets the user bit; L1
    entries that were kernel's keep a software mark, and user ones become global.
    """
    # 32-bit guests run in rings 1 and 3, so that USER keeps its meaning and is left alone.
    if bits == 32 or not entry & P:
        return entry
    if level != 1:
        return entry | USER
    # A kernel page becomes a user page with Xen's mark: kernel and processes both run in ring 3.
    if not entry & USER:
        return entry | USER | GUEST_KERNEL
    # A user page is the same under the kernel's root and the processes', and may stay in the TLB over that switch; a
    # kernel page must not.
    if not entry & GUEST_KERNEL:
        return entry | GLOBAL
    return entry

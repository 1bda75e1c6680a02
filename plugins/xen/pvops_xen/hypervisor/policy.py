"""Decisions that a hypervisor's configuration makes, each in one readable place: errors, features, CPUID, MSRs."""

from collections.abc import Mapping
from typing import Final

from pvops_core.machine.features import ENGINE, word
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
# not_direct_mapped 16.
FEATURES: Final = 1 << 5 | 1 << 6 | 1 << 7 | 1 << 13 | 1 << 16
# XENFEAT_pae_pgdir_above_4gb: set for a 32-bit guest that asked for pae_extended_cr3.
FEATURE_PAE_EXTENDED_CR3: Final = 1 << 4

TSC_HZ: Final = 1_000_000_000  # one tick a virtual nanosecond: every clock agrees by construction

_VENDOR: Final = (0x756E6547, 0x6C65746E, 0x49656E69)  # GenuineIntel as ebx, ecx, edx
_SIGNATURE: Final = (0x566E6558, 0x65584D4D, 0x4D4D566E)  # XenVMMXenVMM as ebx, ecx, edx

# What a PV guest is told of, as of the engine's features: large and global pages and the PAT are Xen's to use, and what
# Xen's default policy for such guests leaves out or adds besides.
FEATURES_PV: Final = ENGINE - {"pse", "pge", "pat", "pclmulqdq", "aes", "rdtscp"} | {"apic"}
_EXTENDED: Final = 0x80000001
# An AMD processor repeats these of leaf 1 there, and guests are used to it.
_REPEATED: Final = 0x0183F3FF & ~(1 << 11)
_LEAF1_EDX: Final = word(FEATURES_PV, 1, "edx")
_LEAF1_ECX: Final = word(FEATURES_PV, 1, "ecx")
_EXT1_EDX64: Final = _LEAF1_EDX & _REPEATED | word(FEATURES_PV, _EXTENDED, "edx")
_EXT1_ECX: Final = word(FEATURES_PV, _EXTENDED, "ecx")
_LEAF7_EDX: Final = 1 << 29  # IA32_ARCH_CAPABILITIES exists

# CR4 (pv/domain.c): what a guest chooses (TSD DE), and what it sees of Xen's choice (PAE OSFXSR OSXMMEXCPT).
_CR4_GUEST: Final = 1 << 2 | 1 << 3
CR4_VISIBLE: Final = 1 << 5 | 1 << 9 | 1 << 10


def guest_cr4(value: int) -> int:
    """``pv_fixup_guest_cr4``: CR4 as a guest has it that wants this value."""
    return value & _CR4_GUEST | CR4_VISIBLE


Leaf = tuple[int, int, int, int]

_CPUID: Final[Mapping[int, Leaf]] = {
    0x0: (0x7, _VENDOR[0], _VENDOR[1], _VENDOR[2]),
    0x1: (0x000206A7, 0x00000800, _LEAF1_ECX, _LEAF1_EDX),
    0x2: (0x00000001, 0, 0, 0),
    0x7: (0, 0, 0, _LEAF7_EDX),
    0x40000000: (0x40000002, _SIGNATURE[0], _SIGNATURE[1], _SIGNATURE[2]),
    0x40000001: (XEN_MAJOR << 16 | XEN_MINOR, 0, 0, 0),
    0x40000002: (1, 0x40000000, 0, 1),
    0x80000000: (0x80000008, 0, 0, 0),
    0x80000001: (0, 0, _EXT1_ECX, _EXT1_EDX64),
    0x80000002: (0x6F767670, 0x69762073, 0x61757472, 0x2058206C),
    0x80000003: (0x50206E65, 0x72702056, 0x7365636F, 0x00726F73),
    0x80000004: (0, 0, 0, 0),
    0x80000008: (0x3028, 0, 0, 0),
}


def cpuid(leaf: int, subleaf: int, bits: int) -> Leaf:
    """What a guest of this width reads for a CPUID leaf; unknown leaves are zero.

    Hidden are the features that a PV guest must not use (PSE, PGE, PCID, SMEP, SMAP, XSAVE, MTRR, x2APIC, MONITOR) and
    the random numbers, which would make two runs differ.
    """
    del subleaf
    eax, ebx, ecx, edx = _CPUID.get(leaf & 0xFFFF_FFFF, (0, 0, 0, 0))
    if leaf == 0x8000_0001 and bits == 32:
        edx &= ~(1 << 29 | 1 << 11)
    return eax, ebx, ecx, edx


# IA32_ARCH_CAPABILITIES: an emulated processor speculates about nothing, so it has none of the flaws of those that do
# (RDCL SSB MDS PSCHANGE_MC TAA SBDR_SSDP FBSDP PSDP BHI GDS RFDS ITS, and no need to flush the L1 data cache).
_ARCH_CAPABILITIES: Final = sum(1 << bit for bit in (0, 3, 4, 5, 6, 8, 13, 14, 15, 20, 26, 27, 62))

_MSRS: Final[Mapping[int, int]] = {
    0x1B: 0xFEE0_0900,  # APIC_BASE: enabled, boot processor
    0x8B: 0,  # UCODE_REV
    0xCE: 1 << 31,  # PLATFORM_INFO: cpuid can be made to fault in processes
    0x10A: _ARCH_CAPABILITIES,
    0x1A0: 1,  # MISC_ENABLE: fast strings
    0x277: 0x0501_0007_0406,  # CR_PAT as Xen sets it
    0xC000_0080: 0xD01,  # EFER: SCE LME LMA NXE
}

# Writes that Xen drops silently because guests do them out of habit.
_MSR_WRITES_IGNORED: Final = frozenset({0x1B, 0x8B, 0x1A0, 0x277, 0xC000_0080, 0xC000_0103})


def read_msr(index: int) -> int | None:
    """Value of an MSR that is the same for every vCPU; None where Xen gives #GP."""
    return _MSRS.get(index)


def msr_write_ignored(index: int) -> bool:
    """The write has no effect; other unknown writes are #GP."""
    return index in _MSR_WRITES_IGNORED


def uuid_of(domid: int) -> bytes:
    """A domain's UUID, the same in every run."""
    return bytes.fromhex("70766f70730040008000") + domid.to_bytes(6, "big")

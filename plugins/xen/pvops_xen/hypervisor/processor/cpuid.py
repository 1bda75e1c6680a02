"""What cpuid tells a PV guest: each leaf with the rule that it follows (``guest_cpuid`` of xen/arch/x86/cpuid.c)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu.model.features import ENGINE, LONG_MODE, PLACES, word
from pvops_xen.hypervisor.abi import PAGE_SHIFT
from pvops_xen.hypervisor.policy import TSC_HZ, XEN_MAJOR, XEN_MINOR
from pvops_xen.hypervisor.scheduling.timers import MULTIPLIER, SHIFT

if TYPE_CHECKING:
    from pvops_xen.hypervisor.core import Hypervisor

Leaf = tuple[int, int, int, int]
Answer = Callable[["Hypervisor"], Leaf]
NOTHING: Final = (0, 0, 0, 0)
XEN_LEAVES: Final = 0x4000_0000  # XEN_CPUID_FIRST_LEAF (public/arch-x86/cpuid.h)
_EXTENDED: Final = 0x8000_0000
_VENDOR: Final = (0x756E6547, 0x6C65746E, 0x49656E69)  # GenuineIntel as ebx, ecx, edx
_SIGNATURE: Final = (0x566E6558, 0x65584D4D, 0x4D4D566E)  # XenVMMXenVMM as ebx, ecx, edx
_BRAND: Final = b"pvops virtual Xen PV processor".ljust(48, b"\0")

# What a PV guest is told of, as of the engine's features: large and global pages and the PAT are Xen's to use, and what
# Xen's default policy for such guests leaves out or adds besides. The random numbers would make two runs differ.
FEATURES_PV: Final = ENGINE - {"pse", "pge", "pat", "pclmulqdq", "aes", "rdtscp"} | {"apic"}
# An AMD processor repeats these of leaf 1 in leaf 0x80000001, and guests are used to it.
_REPEATED: Final = 0x0183F3FF & ~(1 << 11)
_ARCH_CAPABILITIES: Final = 1 << 29  # of leaf 7: IA32_ARCH_CAPABILITIES is there
_TSC_IS_SAFE, _HAS_RDTSCP = 1 << 1, 1 << 2
_PRESERVES_AD: Final = 1 << 0


def _brand(part: int) -> Answer:
    raw = _BRAND[16 * part : 16 * part + 16]
    words = tuple(int.from_bytes(raw[at : at + 4], "little") for at in range(0, 16, 4))
    return lambda _hv: (words[0], words[1], words[2], words[3])


def _extended_features(hv: Hypervisor) -> Leaf:
    """A 32-bit guest has no long mode."""
    # LM and syscall are 64-bit guests' alone (``recalculate_cpuid_policy``).
    names = FEATURES_PV if hv.abi.bits == 64 else FEATURES_PV - LONG_MODE
    repeated = word(FEATURES_PV, 1, "edx") & _REPEATED
    return 0, 0, word(names, _EXTENDED + 1, "ecx"), repeated | word(names, _EXTENDED + 1, "edx")


def _address_width(hv: Hypervisor) -> Leaf:
    return 0, (len(hv.frames) - 1).bit_length() + PAGE_SHIFT, 0, 0


_FIXED: Final[Mapping[tuple[int, int | None], Leaf]] = {
    # leaf, subleaf (None: any) -> eax, ebx, ecx, edx
    (0x0, None): (0x7, *_VENDOR),  # the highest leaf, and whose processor
    (0x1, None): (0x000206A7, 0x800, word(FEATURES_PV, 1, "ecx"), word(FEATURES_PV, 1, "edx")),  # no APIC number in EBX
    (0x2, None): (0x1, 0, 0, 0),  # no descriptors of caches
    (0x7, 0): (0, 0, 0, _ARCH_CAPABILITIES),
    (XEN_LEAVES, None): (XEN_LEAVES + 5, *_SIGNATURE),  # the highest of Xen's leaves
    (XEN_LEAVES + 1, None): (XEN_MAJOR << 16 | XEN_MINOR, 0, 0, 0),
    (XEN_LEAVES + 2, None): (1, XEN_LEAVES, _PRESERVES_AD, 0),  # one hypercall page, by this MSR; features
    # Time: vTSC off, the host's TSC is safe and RDTSCP its own; mode "default"; kHz; the first incarnation.
    (XEN_LEAVES + 3, 0): (_TSC_IS_SAFE | _HAS_RDTSCP * ("rdtscp" in PLACES), 0, TSC_HZ // 1000, 1),
    (XEN_LEAVES + 3, 1): (0, 0, MULTIPLIER, SHIFT),  # offset, and the scale of the time record
    (XEN_LEAVES + 3, 2): (TSC_HZ // 1000, 0, 0, 0),  # the host's kHz
    (XEN_LEAVES + 4, None): NOTHING,  # of HVM guests
    (_EXTENDED, None): (_EXTENDED + 8, 0, 0, 0),
    (_EXTENDED + 8, None): (0x3028, 0, 0, 0),  # 48 bits of linear, 40 of physical addresses
}
_ASKED: Final[Mapping[tuple[int, int | None], Answer]] = {
    (XEN_LEAVES + 5, 0): _address_width,  # bits of the highest machine address
    (_EXTENDED + 1, None): _extended_features,
    **{(_EXTENDED + 2 + part, None): _brand(part) for part in range(3)},
}


def cpuid(hv: Hypervisor, leaf: int, subleaf: int) -> Leaf:
    """EAX, EBX, ECX and EDX of a leaf, without the features that the machine's processor lacks; else zeroes."""
    leaf, subleaf = leaf & 0xFFFF_FFFF, subleaf & 0xFFFF_FFFF
    eax, ebx, ecx, edx = _policy(hv, leaf, subleaf)
    identity = hv.machine.identity
    if identity is not None and leaf == 0:
        return eax, *identity.words
    eax = identity.signature if identity is not None and leaf == 1 else eax
    # What the machine's model of a processor lacks, the guest is not told of either.
    lacking = ENGINE - hv.machine.features
    if lacking and leaf in {1, _EXTENDED + 1}:
        ecx &= ~word(lacking, leaf, "ecx")
        edx &= ~word(lacking, leaf, "edx")
        if leaf > 1:
            edx &= ~(word(lacking, 1, "edx") & _REPEATED)
    return eax, ebx, ecx, edx


def _policy(hv: Hypervisor, leaf: int, subleaf: int) -> Leaf:
    # A leaf that takes no subleaf first, then the one with it.
    for key in ((leaf, None), (leaf, subleaf)):
        if key in _ASKED:
            return _ASKED[key](hv)
        if key in _FIXED:
            return _FIXED[key]
    return NOTHING

"""What cpuid shows a guest whose processor was chosen to have fewer features than Xen's policy would offer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.machine.features import ENGINE, word
from pvops_xen.hypervisor import policy

if TYPE_CHECKING:
    from pvops_xen.hypervisor.core import Hypervisor

_EXTENDED: Final = 0x80000001
# Leaf 0x80000001 repeats these bits of leaf 1, as an AMD processor does: what is hidden there is hidden here.
_REPEATED: Final = 0x0183F3FF & ~(1 << 11)


def cpuid(hv: Hypervisor, leaf: int, subleaf: int) -> policy.Leaf:
    """EAX, EBX, ECX and EDX of a leaf: the policy's, without the features that the machine's processor lacks."""
    eax, ebx, ecx, edx = policy.cpuid(leaf, subleaf, hv.abi.bits)
    lacking = ENGINE - hv.machine.features
    if lacking and leaf in {1, _EXTENDED}:
        ecx &= ~word(lacking, leaf, "ecx")
        edx &= ~word(lacking, leaf, "edx")
        if leaf == _EXTENDED:
            edx &= ~(word(lacking, 1, "edx") & _REPEATED)
    return eax, ebx, ecx, edx

"""What cpuid says on this machine: one table, the same whatever the host's CPU is.

Only what the engine really does is offered (``features``), or fewer where ``Machine.features`` says so. There is no
local APIC and no XSAVE, and no RDRAND, whose numbers would come from the host.
Source of the bit places: Intel SDM volume 2, CPUID, and AMD APM volume 3, appendix E.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.kinds import MachineKind
from pvops_core.machine.cpu.memory.paging import PHYSICAL_BITS
from pvops_core.machine.cpu.model.features import LONG_MODE, word
from pvops_core.machine.cpu.model.identity import CpuIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pvops_core.machine.cpu.vcpu import Vcpu

Leaf = tuple[int, int, int, int]
MARK: Final = 0x70766F70
"""A leaf that no processor has ("pvop"): the machine answers it with zeros, whatever the platform, and
counts and logs nothing. It tells who counts that a program has come to a place, whose number is the subleaf.

A program at any level may execute it, and no kernel sees it: programs mark what is to be measured, as with the magic
instructions of other simulators."""
NO_LEAF: Final[Leaf] = 0, 0, 0, 0

_BRAND: Final = b"pvops virtual CPU".ljust(48, b"\0")
_EXTENDED: Final = 0x80000001
_USUAL: Final = CpuIdentity()


def _text(data: bytes) -> Leaf:
    a, b, c, d = (int.from_bytes(data[at : at + 4], "little") for at in range(0, 16, 4))
    return a, b, c, d


def cpuid(vcpu: Vcpu, leaf: int, subleaf: int) -> Leaf:
    """EAX, EBX, ECX and EDX of a leaf; zeros for one that the machine does not have."""
    del subleaf  # no leaf of this machine has any
    answer = _LEAVES.get(leaf)
    return answer(vcpu) if answer is not None else NO_LEAF


def _identity(vcpu: Vcpu) -> CpuIdentity:
    return vcpu.machine.identity or _USUAL


def _vendor(vcpu: Vcpu) -> Leaf:
    # The largest standard leaf: nothing that is offered stands beyond leaf 1.
    return 1, *_identity(vcpu).words


def _features(vcpu: Vcpu) -> Leaf:
    machine = vcpu.machine
    # Without PAE's tables an i386 machine could not keep the promise; its page walk has entries of 32 bits.
    names = machine.features - {"pae"} if machine.kind is MachineKind.I386 else machine.features
    ebx = vcpu.index << 24 | len(machine.vcpus) << 16 | 8 << 8  # APIC number, logical CPUs, 64-byte cache lines
    return _identity(vcpu).signature, ebx, word(names, 1, "ecx"), word(names, 1, "edx")


def _extended_vendor(_vcpu: Vcpu) -> Leaf:
    return 0x80000008, 0, 0, 0


def _extended_features(vcpu: Vcpu) -> Leaf:
    features = vcpu.machine.features
    names = {
        MachineKind.X86_64: features,
        MachineKind.PAE: features - LONG_MODE,
        MachineKind.I386: features - LONG_MODE - {"nx"},
    }[vcpu.machine.kind]
    return _identity(vcpu).signature, 0, word(names, _EXTENDED, "ecx"), word(names, _EXTENDED, "edx")


def _addresses(vcpu: Vcpu) -> Leaf:
    # Widths of physical and of linear addresses
    # 48 linear bits are four levels of tables (SDM volume 3, 4.5).
    return PHYSICAL_BITS | (48 if vcpu.machine.kind is MachineKind.X86_64 else 32) << 8, 0, 0, 0


def _brand(part: int) -> Callable[[Vcpu], Leaf]:
    text = _text(_BRAND[part * 16 : part * 16 + 16])
    return lambda _vcpu: text


_LEAVES: Mapping[int, Callable[[Vcpu], Leaf]] = {
    0: _vendor,
    1: _features,
    0x80000000: _extended_vendor,
    0x80000001: _extended_features,
    0x80000002: _brand(0),
    0x80000003: _brand(1),
    0x80000004: _brand(2),
    0x80000008: _addresses,
}

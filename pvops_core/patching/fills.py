"""How a kernel's own code fills its table on a platform: the shape of a fill, and the parts that platforms share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol

from pvops_core.errors import ImageError

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.ops import Layout

Target = str | int | None
"""A symbol, an address, or None for an empty slot."""

NOP_NAMES: Final = ("_paravirt_nop", "paravirt_nop")
"""The function that does nothing: since 2.6.23 one of these; a fill may name either."""

SPIN_UNLOCK: Final = "lock.queued_spin_unlock"
VCPU_IS_PREEMPTED: Final = "lock.vcpu_is_preempted"


class KernelFill(Protocol):
    """How a real kernel fills pv_ops on a platform, and which CPU features the platform forces."""

    def slots(self, kernel: KernelImage, layout: Layout, cpus: int) -> Mapping[str, str | int | None]:
        """What the kernel has put into its table by the time it patches itself.

        Args:
            kernel: the image, for its symbols and notes.
            layout: the table.
            cpus: number of CPUs that the kernel sees.

        Returns:
            The kernel's own op path (``mmu.write_cr3``) to a symbol, an address, or None for an empty slot.
            Ops that are not named stay as the base backend has them.

        Raises:
            ImageError: the image lacks what this platform needs.
        """

    def features(self, kernel: KernelImage, cpus: int) -> frozenset[str]:
        """Names of the CPU features that this platform forces on: ``XENPV``, ``PVUNLOCK``, ``VCPUPREEMPT``."""


def callee_save(function: str) -> str:
    """Symbol of the thunk that ``PV_CALLEE_SAVE(function)`` names: it keeps every register but the result."""
    return f"__raw_callee_save_{function}"


def queued_spinlocks(*, wait: str, kick: str, vcpu_is_preempted: str | None = None) -> dict[str, Target]:
    """The lock ops of a guest that yields to its hypervisor instead of spinning.

    What ``kvm_spinlock_init``, ``xen_init_spinlocks`` and ``hv_init_spinlocks`` have in common. All of them do it
    only with more than one possible CPU.

    Args:
        wait: function that blocks a vCPU until it is kicked.
        kick: function that wakes a vCPU.
        vcpu_is_preempted: C function behind the callee-save thunk; None leaves the op as it is.
    """
    slots: dict[str, Target] = {
        "lock.queued_spin_lock_slowpath": "__pv_queued_spin_lock_slowpath",
        SPIN_UNLOCK: callee_save("__pv_queued_spin_unlock"),
        "lock.wait": wait,
        "lock.kick": kick,
    }
    if vcpu_is_preempted is not None:
        slots[VCPU_IS_PREEMPTED] = callee_save(vcpu_is_preempted)
    return slots


def compiled_table(kernel: KernelImage, layout: Layout, symbol: str, group: str) -> dict[str, Target]:
    """One group of ops from a table of pv_ops' shape that was compiled into the kernel and is copied at boot.

    Args:
        kernel: the image.
        layout: the shape.
        symbol: name of the table, for example ``xen_mmu_ops``.
        group: first component of the ops' paths, for example ``mmu``; the copy is of that group as a whole.

    Raises:
        ImageError: the kernel has no such table.
    """
    words = kernel.pointers(required(kernel, symbol), len(layout.slots))
    return {slot.path: words[slot.type] or None for slot in layout.slots if slot.path.partition(".")[0] == group}


def required(kernel: KernelImage, symbol: str) -> int:
    """Address of a symbol without which the kernel cannot run on a platform.

    Raises:
        ImageError: the kernel has not got it.
    """
    address = kernel.symbols.get(symbol)
    if address is None:
        raise ImageError(f"the kernel has no symbol {symbol}", kernel.path, field="symbols")
    return address


def present(kernel: KernelImage, slots: Mapping[str, str]) -> dict[str, Target]:
    """Those of some assignments whose symbol the kernel has: the code that makes the others is not in it either."""
    return {path: symbol for path, symbol in slots.items() if symbol in kernel.symbols}


def find_nop(kernel: KernelImage) -> int | None:
    """Address of the function that does nothing; None where the kernel's symbols do not name one."""
    return next((kernel.symbols[name] for name in NOP_NAMES if name in kernel.symbols), None)


def resolve(kernel: KernelImage, path: str, target: Target) -> int:
    """What a slot holds: an address, 0 for an empty one.

    Raises:
        ImageError: the kernel has no such symbol.
    """
    if target is None:
        return 0
    if isinstance(target, int):
        return target
    address = find_nop(kernel) if target in NOP_NAMES else kernel.symbols.get(target)
    if address is None:
        message = f"the kernel has no symbol {target}, which {path} is set to on this platform"
        raise ImageError(message, kernel.path, field="symbols")
    return address

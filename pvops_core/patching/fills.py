"""How a kernel's own code fills its table on a platform: the shape of a fill, and the parts that platforms share."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol

from pvops_core.errors import ImageError
from pvops_core.patching.stores import constant_stores

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.ops import Layout

TABLE: Final = "pv_ops"
"""The (first) table of ops from 4.20 on."""

Target = str | int | None
"""A symbol, an address, or None for an empty slot."""

NOP_NAMES: Final = ("_paravirt_nop", "paravirt_nop", "nop_func")
"""The function that does nothing: since 2.6.23 one of these; a fill may name any."""

BUG_NAMES: Final = ("paravirt_BUG", "BUG_func")
"""What a kernel calls in place of an empty slot: the second since 6.8."""

LONGEST_FUNCTION: Final = 1 << 14
"""Most bytes of a function that are read where no symbol ends it."""

SPIN_UNLOCK: Final = "lock.queued_spin_unlock"
VCPU_IS_PREEMPTED: Final = "lock.vcpu_is_preempted"


class KernelFill(Protocol):
    """How a real kernel fills pv_ops on a platform, and which CPU features the platform forces.

    One whose kernels tell themselves of another processor than cpuid does has a method ``processor`` besides, which
    takes the image and a ``CpuIdentity`` and gives another: it decides about the nops of kernels to 5.12.
    """

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
    """One group of ops from a table that was compiled into the kernel and is copied at boot.

    Args:
        kernel: the image.
        layout: the shape.
        symbol: name of the table, for example ``xen_mmu_ops``: of pv_ops' shape, or of the group's.
        group: first component of the ops' paths, for example ``mmu``; the copy is of that group as a whole.

    Raises:
        ImageError: the kernel has no such table.
    """
    start = required(kernel, symbol)
    slots = [slot for slot in layout.slots if slot.path.partition(".")[0] == group]
    if not slots:
        return {}
    # To 5.12 it is a table of that group alone; later all of pv_ops' shape, with nothing before the group.
    first, count = slots[0].type, len(slots)
    whole = slots[0].symbol == TABLE and not _begins(kernel, start, first)
    words = kernel.pointers(start + whole * first * kernel.pointer_size, count)
    return {slot.path: word or None for slot, word in zip(slots, words, strict=True)}


def _begins(kernel: KernelImage, start: int, count: int) -> bool:
    """Whether something is in one of so many slots, or they are not all there."""
    try:
        return any(kernel.pointers(start, count))
    except ImageError:
        return True


def assigned(kernel: KernelImage, layout: Layout, *functions: str) -> dict[str, Target]:
    """The slots that functions of a kernel set one by one, read off their code.

    Of several assignments to a slot the last counts, so functions are named in the order in which the boot calls them;
    what is under a condition counts too.

    Args:
        kernel: the image.
        layout: its table.
        functions: their names; one that the kernel has not got assigns nothing.

    Raises:
        ImageError: a function is nowhere in the image.
    """
    slots = {layout.slot_address(kernel.symbols, slot.type): slot.path for slot in layout.slots}
    found: dict[str, Target] = {}
    for function in functions:
        if function not in kernel.symbols:
            continue
        code = function_code(kernel, function)
        for place, value in constant_stores(code, kernel.symbols[function], 8 * kernel.pointer_size):
            if place in slots:
                found[slots[place]] = value or None
    return found


def function_code(kernel: KernelImage, name: str) -> bytes:
    """A function's code, up to the next symbol.

    Args:
        kernel: the image, which has the function.
        name: its name.

    Raises:
        ImageError: the function is nowhere in the image.
    """
    start = kernel.symbols[name]
    # By segments, not sections: those of a module that is linked to the kernel are its own.
    ends = [each.address + each.file_size for each in kernel.segments if start - each.address in range(each.file_size)]
    if not ends:
        raise kernel.error(f"{name} is at {start:#x}, where the kernel has no code", field="symbols")
    addresses = kernel.symbol_table.addresses
    following = bisect_right(addresses, start)
    # The next symbol ends it; without one only so much is looked through.
    end = min(start + LONGEST_FUNCTION, ends[0], *addresses[following : following + 1])
    return kernel.read(start, end - start)


def mentions(kernel: KernelImage, function: str, symbol: str) -> bool:
    """Whether a function's code has a symbol's address in it, outright or counted from the next instruction.

    Args:
        kernel: the image.
        function: name of the function.
        symbol: the other name; where the kernel lacks one of the two the answer is False.

    Raises:
        ImageError: the function is nowhere in the image.
    """
    if function not in kernel.symbols or symbol not in kernel.symbols:
        return False
    start, address, code = kernel.symbols[function], kernel.symbols[symbol], function_code(kernel, function)
    # In 64-bit code the instruction ends with the operand, or with a number of 8 or 32 bits behind it.
    behind = (4, 5, 8) if kernel.pointer_size == 8 else ()
    for at in range(len(code) - 3):
        word = int.from_bytes(code[at : at + 4], "little")
        if any((base + word - address) & 0xFFFFFFFF == 0 for base in (0, *(start + at + end for end in behind))):
            return True
    return False


def switched_on(kernel: KernelImage, *names: str) -> bool:
    """Whether an ``int`` of the kernel's is not 0 as it is linked.

    Args:
        kernel: the image.
        names: names that the variable has had; where the kernel has none of them the answer is True.

    Raises:
        ImageError: the variable is nowhere in the image.
    """
    # An int that is not in this kernel was compiled out: switched on for good.
    return all(any(kernel.read(kernel.symbols[name], 4)) for name in names if name in kernel.symbols)


def in_layout(layout: Layout, slots: Mapping[str, Target]) -> dict[str, Target]:
    """Those of some assignments whose op the kernel's table has: without the op there is no such code either."""
    paths = {slot.path for slot in layout.slots}
    return {path: target for path, target in slots.items() if path in paths}


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


def find_bug(kernel: KernelImage) -> int | None:
    """Address of what is called in place of an empty slot; None where the kernel's symbols do not name it."""
    return next((kernel.symbols[name] for name in BUG_NAMES if name in kernel.symbols), None)


def resolve(kernel: KernelImage, path: str, target: Target) -> int:
    """What a slot holds: an address, 0 for an empty one.

    Raises:
        ImageError: the kernel has no such symbol.
    """
    if target is None:
        return 0
    if isinstance(target, int):
        return target
    # Any of the three names may be meant: they are one function under the name of its day.
    address = find_nop(kernel) if target in NOP_NAMES else kernel.symbols.get(target)
    if address is None:
        message = f"the kernel has no symbol {target}, which {path} is set to on this platform"
        raise ImageError(message, kernel.path, field="symbols")
    return address

"""Tells when a kernel is lost: it faults in what handles its faults, and goes down its stack without end.

The processor would let it: each exception pushes one more frame, over whatever lies below the stack, until a gate or a
page table is spoilt, millions later. Nothing that it does in the meantime says more about why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

LONGEST_STACK: Final = 1 << 16
"""Twice the largest kernel stack: THREAD_SIZE is 8 KiB to 16 KiB, 32 KiB with KASAN (asm/page_64_types.h)."""
_FRAME: Final = 1 << 12
"""More than an exception and its handler put on a stack between them; two tasks' stacks lie further apart."""
_USER: Final = 3


class Descent:
    """Observes a machine's exceptions, and ends the run when they have gone down more than a stack."""

    def __init__(self) -> None:
        self._chains: dict[int, tuple[int, int, int]] = {}  # by vCPU: the highest stack pointer, the last, how many

    def note(self, vcpu: Vcpu, vector: int, _error_code: int | None, _address: int | None) -> None:
        """Observe one."""
        at = vcpu.rsp
        # A program's stack may grow by faults. Xen's kernels of 64 bits are at its level, but in the upper half.
        if vcpu.cpl == _USER and not at >> 63:
            return
        top, last, count = self._chains.get(vcpu.index, (at, at, 0))
        nested = at < top and last - at <= _FRAME
        top, count = (top, count + (at < last)) if nested else (at, 1)
        self._chains[vcpu.index] = top, at, count
        if top - at > LONGEST_STACK:
            told = f"{count} exceptions, each while the one before is handled; the last is vector {vector}"
            vcpu.machine.stop("crash", f"the kernel runs off its stack at {vcpu.rip:#x}: {told}")

"""Straight code that runs off a page's end into one that cannot be fetched from: it is executed up to there first.

The engine translates straight code before it executes any of it, across a page's end too, and a page that is missing
there faults at once: as if nothing of the block had run. Such a fault is not handed on. The block is executed again
with stop addresses near the page's end, which translation does not go beyond and which cost nothing elsewhere, until
the instruction that cannot be fetched is the first that is wanted. What faults then is true.

Nothing is paid where nothing faults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu import faults
from pvops_core.machine.cpu.memory.paging import ErrorCode
from pvops_core.machine.cpu.memory.virtual import LONGEST
from pvops_core.x86 import EFER_NXE, MSR_EFER, PAGE

if TYPE_CHECKING:
    from pvops_core.machine.cpu.vcpu import Vcpu
    from pvops_core.machine.engines import Engine

_HLT: Final = 0xF4
# Beyond it addresses are not canonical, and a fetch there is #GP(0) instead of a page fault
_LOWER_END: Final = 1 << 47


class PageEnd:
    """What one vCPU does about it.

    Attributes:
        wanted: a block is to be executed again up to the page's end.
        armed: the engine has stop addresses there.
    """

    def __init__(self, vcpu: Vcpu, engine: Engine) -> None:
        self._vcpu = vcpu
        self._engine = engine
        self._mask: int = vcpu.machine.kind.mask
        self._next = 0
        self._from = 0
        self._reach = 0
        self.wanted = False
        self.armed = False

    def too_early(self, vector: int, rip: int, error_code: int | None, address: int | None) -> bool:
        """Whether a fault may be one of a fetch from the page behind RIP's, met before what lies between has run.

        It may also be of data there; then it comes again, and is true.
        """
        if self.armed or error_code is None:
            return False
        if vector == faults.PF:
            # A fetch that faults on the next page is told with that page's first byte.
            if address is None or address & PAGE - 1 or not self._of_fetch(error_code):
                return False
            following = address
        elif vector == faults.GP and error_code == 0 and rip >> 12 == _LOWER_END - 1 >> 12:
            following = _LOWER_END
        else:
            return False
        if not 0 < (following - self._linear(rip) & self._mask) <= PAGE:
            return False
        self._next = following
        self.wanted = True
        return True

    def _of_fetch(self, error_code: int) -> bool:
        # Without NXE the I bit of the error code is never set: a fetch looks like a read.
        if error_code & ErrorCode.WRITE:
            return False
        return bool(error_code & ErrorCode.FETCH) or not self._vcpu.msr(MSR_EFER) & EFER_NXE

    def _linear(self, rip: int) -> int:
        """Without 64-bit code RIP is an offset into CS."""
        return rip if self._vcpu.in_64_bit_code else rip + self._vcpu.segment("cs")[1] & self._mask

    def arm(self) -> None:
        """Stop at whatever instruction begins near the page's end, from the next start of the engine on."""
        self.wanted, self.armed = False, True
        self._from = self._linear(self._vcpu.rip)
        page = self._next - PAGE & self._mask
        # At least one instruction has to be executed, or it would stop where it stands for ever.
        least = (self._from - page & self._mask) + 1
        first = max(PAGE - LONGEST, least)
        code = self._vcpu.virtual.read(page, PAGE, system=True)
        while code[first - 1] == _HLT and first > least:
            first -= 1  # so that an hlt is told from a stop by where the engine began
        self._reach = PAGE - first
        # Every byte may begin an instruction, and stop addresses are looked at when code is translated.
        self._engine.stop_before([page + at for at in range(first, PAGE + 1)])
        # The block was translated without them.
        self._engine.remove_code(page, page + PAGE)

    def lift(self) -> None:
        """No stop addresses any more; only while the page is where it was when they were made."""
        if self.armed:
            self.armed = False
            self._engine.stop_before([])
            # By the address: a page mapped anew meanwhile would have other code dropped, which only costs.
            page = self._next - PAGE & self._mask
            self._engine.remove_code(page, page + PAGE)

    def end(self) -> None:
        """The engine has stopped for another reason."""
        self.wanted = False
        self.lift()

    def goes_on(self) -> bool:
        """The engine has stopped with nothing else to tell: whether it was for this, and is to be started again."""
        if self.wanted:
            self.arm()
            return True
        at = self._linear(self._vcpu.rip)
        if self._next - at & self._mask > self._reach:
            return False
        # hlt stops the engine too, one byte after where it began.
        if at == self._from + 1 and self._halted(at):
            return False
        if at == self._next:
            self.lift()
        else:
            self.arm()
        return True

    def _halted(self, at: int) -> bool:
        # At another level hlt would have been refused, not executed.
        return self._vcpu.cpl == 0 and self._vcpu.virtual.number(at - 1, 1, system=True) == _HLT

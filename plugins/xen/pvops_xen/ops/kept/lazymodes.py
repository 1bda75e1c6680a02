"""Where a Linux keeps the lazy modes of its processors and tasks.

Source: arch/x86/kernel/paravirt.c of 6.1 (``enter_lazy``, ``paravirt_start_context_switch``); asm/xen/hypervisor.h and
arch/x86/xen/enlighten_pv.c of 6.12 and 7.2; include/linux/pgtable.h of 7.2 (``lazy_mmu_mode_pause``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from pvops_core.errors import UsageError
from pvops_xen.ops.multicalls import Lazy

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine import Vcpu
    from pvops_xen.ops.kept.linux import Linux

_WORDS: Final = ("paravirt_lazy_mode", "xen_lazy_mode")
"""Per-CPU variables that hold a mode, whichever it is: to 6.5, and since."""
_NESTING: Final = "xen_lazy_nesting"
_OF_CPU: Final = "xen_cpu_lazy_mode"
"""The per-CPU variable that holds the mode of a context switch alone, where that of page tables is each task's."""
_CURRENT: Final = ("current_task", "pcpu_hot")
_LAZY_MMU_UPDATES: Final = 1 << 27
"""TIF_LAZY_MMU_UPDATES (asm/thread_info.h)."""


class LazyModes(ABC):
    """Those of one processor.

    Args:
        linux: the kernel.
        cpu: the processor.
    """

    def __init__(self, linux: Linux, cpu: Vcpu) -> None:
        self._linux = linux
        self._memory = linux.memory
        self._cpu = cpu

    @abstractmethod
    def holds(self, mode: Lazy) -> bool:
        """Whether a mode is in force, whatever is just interrupting."""

    @abstractmethod
    def flushes(self) -> bool:
        """Whether a flush of the mode of page tables has anything to do here."""

    @abstractmethod
    def enter(self, mode: Lazy) -> None:
        """A mode begins."""

    @abstractmethod
    def leave(self) -> None:
        """It ends; what waited for that has been sent."""

    @abstractmethod
    def start_switch(self, task: int, flush: Callable[[], object]) -> None:
        """A task is switched away from: its mode of page tables is interrupted, and that of context switches begins."""

    @abstractmethod
    def end_switch(self, task: int) -> None:
        """A task has been switched to, and goes on with the mode of page tables that it had."""


class ModeWords(LazyModes):
    """A word a processor; of a task that was switched away from a flag says that its mode is to be resumed."""

    def __init__(self, linux: Linux, cpu: Vcpu, symbol: str) -> None:
        super().__init__(linux, cpu)
        self._symbol = symbol
        self._nests = _NESTING in linux.names

    def _place(self, symbol: str) -> int:
        return self._linux.names.per_cpu(symbol, self._cpu)

    def holds(self, mode: Lazy) -> bool:
        """The word says so."""
        return self._memory.u32(self._place(self._symbol)) == mode

    def flushes(self) -> bool:
        """``paravirt_get_lazy_mode() == PARAVIRT_LAZY_MMU``."""
        return self.holds(Lazy.MMU) and not self._linux.in_interrupt(self._cpu)

    def enter(self, mode: Lazy) -> None:
        """``enter_lazy``; entered twice it has to be left twice, where the kernel counts that."""
        # Entered twice and left once would end the mode of the outer one (``enter_lazy``).
        if self._nests and self.holds(mode):
            place = self._place(_NESTING)
            self._memory.set_u32(place, self._memory.u32(place) + 1)
        else:
            self._memory.set_u32(self._place(self._symbol), mode)

    def leave(self) -> None:
        """``leave_lazy``."""
        if self._nests and (depth := self._memory.u32(self._place(_NESTING))):
            self._memory.set_u32(self._place(_NESTING), depth - 1)
        else:
            self._memory.set_u32(self._place(self._symbol), Lazy.NONE)

    def start_switch(self, task: int, flush: Callable[[], object]) -> None:
        """Its mode is left, and noted in its flags."""
        if self.holds(Lazy.MMU):
            # What waits belongs to the old task's tables, and must go before the switch.
            flush()
            self.leave()
            self._flag(task, _LAZY_MMU_UPDATES)
        self.enter(Lazy.CPU)

    def end_switch(self, task: int) -> None:
        """Entered again where the flags say so."""
        self.leave()
        # The flag is in the task, since the switch may come to another processor.
        if self._memory.u64(self._flags(task)) & _LAZY_MMU_UPDATES:
            self._flag(task, 0)
            self.enter(Lazy.MMU)

    def _flags(self, task: int) -> int:
        return task + self._linux.names.member("task_struct", "thread_info.flags")

    def _flag(self, task: int, value: int) -> None:
        place = self._flags(task)
        self._memory.set_u64(place, self._memory.u64(place) & ~_LAZY_MMU_UPDATES | value)


class ModeOfTask(LazyModes):
    """The mode of page tables is the task's: the kernel counts how often it has begun, and is paused, without an op."""

    def __init__(self, linux: Linux, cpu: Vcpu) -> None:
        super().__init__(linux, cpu)
        # 6.1 has it in current_task, 6.5 in pcpu_hot.
        current = next((name for name in _CURRENT if name in linux.names), None)
        if current is None:
            raise UsageError(f"the kernel has its current task in none of {', '.join(_CURRENT)}")
        self._current = current

    def holds(self, mode: Lazy) -> bool:
        """Begun, and not paused."""
        if mode == Lazy.MMU:
            # A paused mode holds nothing back, though it has begun.
            current = self._memory.u64(self._linux.names.per_cpu(self._current, self._cpu))
            return bool(self._memory.u8(self._begun(current))) and not self._memory.u8(self._pauses(current))
        return mode == Lazy.CPU and bool(self._memory.u8(self._switching))

    def flushes(self) -> bool:
        """``xen_flush_lazy_mmu`` asks nothing."""
        return True

    def enter(self, mode: Lazy) -> None:
        """That of context switches: of the other a kernel tells nobody."""
        assert mode == Lazy.CPU
        self._memory.set_u8(self._switching, 1)

    def leave(self) -> None:
        """As there."""
        self._memory.set_u8(self._switching, 0)

    def start_switch(self, task: int, flush: Callable[[], object]) -> None:
        """``lazy_mmu_mode_pause`` of the task, which sends what waits."""
        # Pauses count, so that a switch within a pause does not end it.
        place = self._pauses(task)
        paused = self._memory.u8(place)
        self._memory.set_u8(place, paused + 1 & 0xFF)
        if not paused and self._memory.u8(self._begun(task)):
            flush()
        self.enter(Lazy.CPU)

    def end_switch(self, task: int) -> None:
        """``lazy_mmu_mode_resume`` of the task."""
        self.leave()
        place = self._pauses(task)
        self._memory.set_u8(place, self._memory.u8(place) - 1 & 0xFF)

    @property
    def _switching(self) -> int:
        return self._linux.names.per_cpu(_OF_CPU, self._cpu)

    def _begun(self, task: int) -> int:
        return task + self._linux.names.member("task_struct", "lazy_mmu_state.enable_count")

    def _pauses(self, task: int) -> int:
        return task + self._linux.names.member("task_struct", "lazy_mmu_state.pause_count")


def lazy_modes(linux: Linux, cpu: Vcpu) -> LazyModes:
    """A processor's; UsageError where the kernel keeps them in no way that is known."""
    if _OF_CPU in linux.names:
        return ModeOfTask(linux, cpu)
    for symbol in _WORDS:
        if symbol in linux.names:
            return ModeWords(linux, cpu, symbol)
    known = ", ".join((*_WORDS, _OF_CPU))
    raise UsageError(f"the kernel has its lazy mode in none of {known}: the xen ops cannot serve it")

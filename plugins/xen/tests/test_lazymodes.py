"""Where kernels keep their lazy modes: a word a processor, or a count a task."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Final

import pytest
from pvops_xen.ops.kept.lazymodes import LazyModes, lazy_modes
from pvops_xen.ops.multicalls import Lazy

from pvops_core.errors import UsageError

TASK, NEXT = 0x1000, 0x2000
MEMBERS: Final = {"thread_info.flags": 0, "lazy_mmu_state.enable_count": 8, "lazy_mmu_state.pause_count": 9}
UPDATES: Final = 1 << 27


class Memory(defaultdict[int, int]):
    """Numbers by address, whatever their width."""

    def __init__(self) -> None:
        super().__init__(int)
        self.u8 = self.u32 = self.u64 = self.__getitem__
        self.set_u8 = self.set_u32 = self.set_u64 = self.__setitem__


class Names(dict[str, int]):
    """Per-CPU variables by name."""

    def per_cpu(self, symbol: str, _cpu: object) -> int:
        """The one processor's."""
        return self[symbol]

    def member(self, _type: str, path: str) -> int:
        """Of a task."""
        return MEMBERS[path]


def kernel(*variables: str) -> tuple[SimpleNamespace, Memory]:
    names = Names({name: 8 * (1 + number) for number, name in enumerate(variables)})
    memory = Memory()
    linux = SimpleNamespace(names=names, memory=memory, in_interrupt=lambda _cpu: bool(memory[0]))
    return linux, memory


def modes_of(linux: SimpleNamespace) -> LazyModes:
    return lazy_modes(linux, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("symbol", ["paravirt_lazy_mode", "xen_lazy_mode"])
def test_a_word_a_processor_is_interrupted_and_resumed_by_a_flag_of_the_task(symbol: str) -> None:
    linux, memory = kernel(symbol)
    modes, sent = modes_of(linux), []
    modes.enter(Lazy.MMU)
    assert memory[linux.names[symbol]] == Lazy.MMU
    modes.start_switch(TASK, lambda: sent.append(1))
    assert (sent, memory[TASK], modes.holds(Lazy.CPU), modes.holds(Lazy.MMU)) == ([1], UPDATES, True, False)
    modes.end_switch(NEXT)
    assert not modes.holds(Lazy.CPU)
    assert not modes.holds(Lazy.MMU), "the next one had none"
    modes.start_switch(NEXT, lambda: sent.append(2))
    modes.end_switch(TASK)
    assert (sent, memory[TASK], modes.holds(Lazy.MMU)) == ([1], 0, True)


def test_entered_twice_it_is_left_twice_where_the_kernel_counts() -> None:
    linux, _memory = kernel("xen_lazy_mode", "xen_lazy_nesting")
    modes = modes_of(linux)
    for _ in range(2):
        modes.enter(Lazy.MMU)
    modes.leave()
    assert modes.holds(Lazy.MMU)
    modes.leave()
    assert not modes.holds(Lazy.MMU)


def test_a_flush_in_an_interrupt_has_nothing_to_do() -> None:
    linux, memory = kernel("xen_lazy_mode")
    modes = modes_of(linux)
    assert not modes.flushes(), "no mode"
    modes.enter(Lazy.MMU)
    assert modes.flushes()
    memory[0] = 1
    assert modes.holds(Lazy.MMU)
    assert not modes.flushes()


def test_a_task_s_count_is_paused_while_it_is_away() -> None:
    linux, memory = kernel("current_task", "xen_cpu_lazy_mode")
    modes, sent = modes_of(linux), []
    memory[linux.names["current_task"]] = TASK
    assert modes.flushes(), "nothing is asked"
    memory[TASK + 8] = 2
    assert modes.holds(Lazy.MMU)
    modes.start_switch(TASK, lambda: sent.append(1))
    assert (sent, modes.holds(Lazy.MMU), modes.holds(Lazy.CPU)) == ([1], False, True)
    memory[linux.names["current_task"]], memory[NEXT + 9] = NEXT, 1
    modes.end_switch(NEXT)
    assert not modes.holds(Lazy.CPU)
    assert not modes.holds(Lazy.MMU), "that of the other task"
    memory[linux.names["current_task"]] = TASK
    modes.start_switch(NEXT, lambda: sent.append(2))
    modes.end_switch(TASK)
    assert (sent, memory[TASK + 9], memory[NEXT + 9]) == ([1], 0, 1)
    assert modes.holds(Lazy.MMU)


def test_one_that_is_paused_already_has_sent_what_waited() -> None:
    linux, memory = kernel("current_task", "xen_cpu_lazy_mode")
    sent: list[int] = []
    memory[TASK + 8], memory[TASK + 9] = 1, 1
    modes_of(linux).start_switch(TASK, lambda: sent.append(1))
    assert (sent, memory[TASK + 9]) == ([], 2)


@pytest.mark.parametrize("variables", [(), ("xen_cpu_lazy_mode",)])
def test_a_kernel_that_keeps_them_otherwise_is_refused(variables: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="in none of"):
        modes_of(kernel(*variables)[0])

"""Where everybody in the built-in guest goes on: its vCPUs' stacks, and those of the tasks that wait for their turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pvops_core.guest.stacks.returns import StackScan, TaskStack, user_mode_of

if TYPE_CHECKING:
    from pvops_core.backends import Platform
    from pvops_core.guests import BuiltinGuest
    from pvops_core.machine import Machine


def returns_of(
    guest: BuiltinGuest, machine: Machine, platform: Platform, read: Callable[[int, int], bytes]
) -> StackScan:
    """Who returns where, in a session's guest; ``read`` gives bytes of its image as they are now."""
    return StackScan(
        machine,
        stack_size=guest.symbols["stack_size"],
        symbol_at=guest.image.symbol_at,
        in_user_mode=user_mode_of(platform),
        tasks=lambda: _asleep(guest, machine, read),
    )


def _asleep(guest: BuiltinGuest, machine: Machine, read: Callable[[int, int], bytes]) -> Iterator[TaskStack]:
    """The tasks that have been switched away from: a process, or the task that has booted while those run."""
    symbols, word = guest.symbols, guest.kind.pointer_size
    size, saved = symbols["stack_size"], symbols["task_thread_offset"] + symbols["thread_sp_offset"]
    pointers = [vcpu.rsp for vcpu in machine.vcpus]
    places = {symbols["boot_stack"]: "the boot task"}
    places |= {symbols["stacks"] + number * size: f"process {number + 1}" for number in range(symbols["nr_processes"])}
    for start, name in places.items():
        pointer = int.from_bytes(read(start + saved, word), "little")
        executing = any(start < each <= start + size for each in pointers)
        exited = read(start + symbols["task_exited_offset"], 1) != b"\0"
        if start < pointer < start + size and not executing and not exited:
            yield TaskStack(name, start, start + size, None, read(pointer, start + size - pointer))

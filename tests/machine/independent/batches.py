"""Chooses programs and runs them, as many at a time as fit into a ROM."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pvops_core.machine import MachineKind
from tests.machine.independent import layout
from tests.machine.independent.image import image
from tests.machine.independent.results import told
from tests.machine.memory_comparison import Result, model_result
from tests.machine.memory_programs import Writer

if TYPE_CHECKING:
    from tests.machine.memory_programs import Program


def chosen(count: int, seed: int) -> dict[int, Program]:
    """The first programs from a seed on whose ends the manual foretells, by seed."""
    found: dict[int, Program] = {}
    while len(found) < count:
        program = Writer(seed).program()
        if model_result(program) is not None:
            found[seed] = program
        seed += 1
    return found


def run(processor: Callable[[bytes], bytes], programs: Mapping[int, Program]) -> dict[int, Result]:
    """What a processor makes of programs, by seed.

    Raises:
        ProcessorError: it does not tell of all of them.
    """
    found: dict[int, Result] = {}
    for kind in MachineKind:
        of_kind = [(seed, program) for seed, program in programs.items() if program.kind is kind]
        for first in range(0, len(of_kind), layout.MOST):
            these = dict(of_kind[first : first + layout.MOST])
            rom = image(kind, list(these.values()))
            found |= zip(these, told(list(these.values()), processor(rom)), strict=True)
    return found

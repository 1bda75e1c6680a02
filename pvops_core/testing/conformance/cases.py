"""What the suite tries: every op of every layout that the backend can run, by laws and by rules that hold for all."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.backends import chain, implemented
from pvops_core.guests import LAYOUTS as GUESTS
from pvops_core.ops import LAYOUTS, Convention
from pvops_core.patching.patchlets import select
from pvops_core.testing.conformance import memory, registers, structures
from pvops_core.testing.conformance.laws import LAWS, Law
from pvops_core.testing.fixtures.cells import USUAL, MachineCell, capabilities

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.ops import Layout
    from pvops_core.testing.fixtures.choices import Choices

LAW_MODULES: Final = (memory, registers, structures)
"""Imported for the laws that they make known."""
MODES: Final = ("", "noreplace-paravirt", "sites=second")


OF_A_KERNEL: Final = "test_hooks_do_what_the_kernels_functions_do"
"""The test whose guest is a real kernel."""


@attrs.frozen
class Case:
    """One try.

    Attributes:
        op: the op that it says something about; empty for a guest as a whole.
        cell: the machine.
        law: the law, for a test of one.
    """

    op: str
    cell: MachineCell
    law: Law | None = None

    def within(self, globs: str) -> bool:
        """Whether its layout matches one of these globs, parted by commas."""
        return any(fnmatchcase(self.cell.layout, glob) for glob in globs.split(","))

    def chosen(self, choices: Choices) -> Case:
        """The same case on a machine with these settings."""
        return attrs.evolve(self, cell=self.cell.chosen(choices))

    def __str__(self) -> str:
        parts = (self.op, self.law.name if self.law else "", str(self.cell), self.cell.cmdline)
        return "-".join(part for part in parts if part)


def own_ops(backend: Backend) -> frozenset[str]:
    """Ops that a backend says anything about itself."""
    return implemented(backend) | backend.nops | backend.empty | {patchlet.op for patchlet in backend.patchlets}


def cases(
    test: str,
    backend: Backend,
    backends: Mapping[str, Backend],
    ops: frozenset[str] | None = None,
    *,
    smoke: bool = False,
) -> list[Case]:
    """The cases of one test of the suite.

    Args:
        test: name of the test function.
        backend: the backend.
        backends: all that are loaded.
        ops: only cases about these; None for all, and for those about the guest as a whole.
        smoke: only cases about what the backend itself implements, and whole guests of the usual layouts.
    """
    found = _cases(test, backend, backends)
    if ops is not None:
        return [case for case in found if case.op in ops]
    if not smoke:
        return found
    own, usual = own_ops(backend), set(USUAL.values())
    return [case for case in found if case.op in own or (not case.op and _plain(case.cell, usual))]


def _plain(cell: MachineCell, layouts: Container[str]) -> bool:
    return cell.layout in layouts and not cell.cmdline


def _cases(test: str, backend: Backend, backends: Mapping[str, Backend]) -> list[Case]:
    has = capabilities(backend, backends)
    layouts = [LAYOUTS[name] for name in GUESTS if f"kind.{LAYOUTS[name].kind.value}" in has]
    if not layouts:
        return [Case("", MachineCell(backend.name, "", why_not="needs a kind of machine that a built-in guest is for"))]
    if test == OF_A_KERNEL:
        return [Case("", MachineCell(backend.name, layouts[-1].name))]
    return [case for layout in layouts for case in _of(test, layout, backend, backends, has)]


def _of(
    test: str, layout: Layout, backend: Backend, backends: Mapping[str, Backend], has: frozenset[str]
) -> Iterator[Case]:
    match test:
        case "test_law":
            yield from _laws(layout, backend.name, has)
        case "test_patchlet_does_what_its_hook_does":
            own = {op for link in chain(backend, backends) for op in select(link.patchlets, layout)}
            yield from (Case(op, MachineCell(backend.name, layout.name)) for op in sorted(own) if _function(layout, op))
        case "test_whole_guest":
            yield from (
                Case("", MachineCell(backend.name, layout.name, count, "entry", mode))
                for count in (1, 2)
                for mode in MODES
            )
        case "test_two_runs_are_one":
            yield from (Case("", MachineCell(backend.name, layout.name, count, "entry")) for count in (1, 2))
        case "test_calling_convention":
            ops = [slot.op for slot in (*layout.slots, *layout.boot_hooks)]
            yield from (
                Case(op.name, MachineCell(backend.name, layout.name, point="entry")) for op in ops if not op.is_data
            )
        case _:
            ops = [slot.op for slot in layout.slots if slot.op.name != "patch"]
            yield from (Case(op.name, MachineCell(backend.name, layout.name)) for op in ops if not op.is_data)


def _function(layout: Layout, op: str) -> bool:
    return layout.by_op(op).op.convention is not Convention.NONE


def _laws(layout: Layout, backend: str, has: frozenset[str]) -> Iterator[Case]:
    for law in LAWS:
        for op in law.ops:
            if law.applies(op, layout):
                missing = sorted(law.needs - has)
                why_not = f"needs {', '.join(missing)}" if missing else ""
                yield Case(op, MachineCell(backend, layout.name, law.vcpus, law.point, why_not=why_not), law)

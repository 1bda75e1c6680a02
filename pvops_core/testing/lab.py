"""Machines kept from test to test: each boots once and goes back to its snapshot for every test."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import UsageError
from pvops_core.session import Session
from pvops_core.testing.call import Caller
from pvops_core.testing.changes import Look
from pvops_core.testing.patched import Patcher
from pvops_core.testing.points import run_to

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.machine import Snapshot
    from pvops_core.testing.cells import Cell

MEMORY: Final = 4 << 20
"""Bytes of a test's guest: the built-in one needs no more, and less is compared faster."""
KEPT: Final = 12
"""Machines kept at a time."""


class ImpossibleError(UsageError):
    """A backend cannot be the machine that was asked for: so many vCPUs, say."""


@attrs.frozen(eq=False)
class Lab:
    """A machine for tests.

    Attributes:
        cell: what it is.
        seed: of its scheduler.
        session: guest and backend.
        start: where every test begins.
        began: the first vCPU as it was there.
        call: calls ops in it.
    """

    cell: Cell
    seed: int
    session: Session
    start: Snapshot
    began: Mapping[str, int]
    call: Caller

    @classmethod
    def open(cls, cell: Cell, backends: Mapping[str, Backend], seed: int) -> Lab:
        """Make a machine, run it to the cell's point and take a snapshot.

        Raises:
            ImpossibleError: the backend has no such machine.
            PvopsError: it cannot be made, or does not come to the point.
        """
        try:
            session = Session.of_builtin(
                cell.layout,
                cell.backend,
                backends=backends,
                vcpus=cell.vcpus,
                seed=seed,
                memory=MEMORY,
                cmdline=cell.cmdline,
                options=dict(cell.choices.settings),
            )
        except UsageError as error:
            raise ImpossibleError(error.message) from error
        try:
            run_to(session, cell.point)
            start = session.machine.snapshot()
            look = Look(session, session.machine.vcpus[0])
            look.take()
        except BaseException:
            session.close()
            raise
        return cls(cell, seed, session, start, dict(look.registers), Caller(session))

    def restore(self) -> None:
        """Go back to the start."""
        self.session.machine.restore(self.start)

    @property
    def patch(self) -> Patcher:
        """Asks for the code of sites."""
        return Patcher(self.call)


class Pool:
    """The labs of one test run; those used longest ago are closed.

    Args:
        backends: all that are loaded.
        seed: of every lab.
    """

    def __init__(self, backends: Mapping[str, Backend], seed: int) -> None:
        self._backends = backends
        self._seed = seed
        self._labs: OrderedDict[Cell, Lab] = OrderedDict()

    def lab(self, cell: Cell) -> Lab:
        """The lab of a cell, at its start."""
        lab = self._labs.pop(cell, None)
        if lab is None:
            lab = Lab.open(cell, self._backends, self._seed)
        else:
            lab.restore()
        self._labs[cell] = lab
        while len(self._labs) > KEPT:
            self._labs.popitem(last=False)[1].session.close()
        return lab

    def close(self) -> None:
        """Close all of them."""
        while self._labs:
            self._labs.popitem()[1].session.close()

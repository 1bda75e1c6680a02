"""Machines of a backend with which the guest does not even boot: it boots with the base's ops, and gets its own then.

So a law can say what is wrong, where a boot says no more than where the guest fell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.errors import PvopsError, SwitchError
from pvops_core.testing.fixtures.keptmachine import KeptMachine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.backends import Backend
    from pvops_core.session import Session
    from pvops_core.testing.fixtures.cells import MachineCell

_BY: Final = "conformance"


class LateMachine(KeptMachine):
    """A kept machine whose backend's own ops come into force where tests begin.

    Args:
        cell: what it is.
        backends: all that are loaded.
        seed: of its scheduler.
        unbooted: why the guest does not boot with them.

    Raises:
        PvopsError: that one, where the base's ops help no further, or what is wrong with an own op if it cannot even
            be switched to.
    """

    def __init__(self, cell: MachineCell, backends: Mapping[str, Backend], seed: int, unbooted: PvopsError) -> None:
        self.unbooted = unbooted
        self._base = backends[cell.backend].base
        super().__init__(cell, backends, seed)

    def arrive(self, session: Session, cell: MachineCell) -> None:
        """Run to where tests begin with the base's ops."""
        if self._base is None:
            raise self.unbooted
        board, history = session.switchboard, tuple(session.switchboard.history)
        board.switch_backend(self._base, by=_BY)
        try:
            super().arrive(session, cell)
        except PvopsError:
            raise self.unbooted from None
        try:
            board.switch_backend(cell.backend, by=_BY)
        except SwitchError as error:
            raise AssertionError(f"{error.__cause__ or error}\n  its boot:  {self.unbooted}") from error
        board.history[:] = history


def must_boot(kept: KeptMachine) -> None:
    """A test that saw nothing wrong fails all the same where the guest does not boot."""
    if isinstance(kept, LateMachine):
        raise kept.unbooted

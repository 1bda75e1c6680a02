"""Machines kept from test to test: each boots once, up to a place, and goes back to its snapshot for every test."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from pvops_core.closing import Closing
from pvops_core.errors import UsageError
from pvops_core.session import Session
from pvops_core.testing.call import Caller
from pvops_core.testing.changes import registers_of
from pvops_core.testing.patched import PatchCaller
from pvops_core.testing.points import run_to

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.machine import Machine, Vcpu
    from pvops_core.testing.booted import BootedKernel
    from pvops_core.testing.cells import MachineCell

MEMORY: Final = 4 << 20
"""Bytes of a test's guest: the built-in one needs no more."""
KEPT: Final = 12
"""Labs kept at a time."""


class ImpossibleError(UsageError):
    """A backend cannot be the machine that was asked for: so many vCPUs, say."""


Key = TypeVar("Key")


class Standing(Closing):
    """A machine that stands where tests begin. A context manager; closing it frees the machine.

    Args:
        session: guest and backend.
        vcpu: who has come to the place.
        title: what it is and where tests begin, for people.

    Attributes:
        start: where tests begin.
        began: the vCPU's registers there.
    """

    def __init__(self, session: Session, vcpu: Vcpu, title: str) -> None:
        self.session: Session = session
        self.vcpu, self.title = vcpu, title
        self.start = self.machine.snapshot()
        self.began = registers_of(vcpu)

    @property
    def machine(self) -> Machine:
        """Its machine."""
        return self.session.machine

    def restore(self) -> None:
        """Go back to the start."""
        self.machine.restore(self.start)

    def close(self) -> None:
        """Free the machine."""
        self.session.close()


class Lab(Standing):
    """The built-in guest on a backend, at a point of its boot.

    Args:
        cell: what it is.
        backends: all that are loaded.
        seed: of its scheduler.

    Raises:
        ImpossibleError: the backend has no such machine.
        PvopsError: it cannot be made, or does not come to the point.
    """

    def __init__(self, cell: MachineCell, backends: Mapping[str, Backend], seed: int) -> None:
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
            title = f"{cell} from point {cell.point!r}"
            super().__init__(session, session.machine.vcpus[0], title)
        except BaseException:
            session.close()
            raise

    @cached_property
    def call(self) -> Caller:
        """Calls ops in it."""
        return Caller(self.session)

    @property
    def patch(self) -> PatchCaller:
        """Asks for the code of sites."""
        return PatchCaller(self.call)


Kept = TypeVar("Kept", bound="Lab | BootedKernel")


class Pool(Generic[Key, Kept]):
    """The machines of one test run; those used longest ago are closed.

    Args:
        make: makes the machine for a key.
        most: machines kept at a time.
    """

    def __init__(self, make: Callable[[Key], Kept], most: int) -> None:
        self._make = make
        self._most = most
        self._kept: OrderedDict[Key, Kept] = OrderedDict()

    def get(self, key: Key) -> Kept:
        """The machine for a key, at its start."""
        standing = self._kept.pop(key, None)
        if standing is None:
            while len(self._kept) >= self._most:
                self._kept.popitem(last=False)[1].close()
            standing = self._make(key)
        standing.restore()
        self._kept[key] = standing
        return standing

    def close(self) -> None:
        """Close all of them."""
        while self._kept:
            self._kept.popitem()[1].close()

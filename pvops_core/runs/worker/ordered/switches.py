"""Switches of ops that a command line orders, as they are made in a session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from pvops_core.backends.finding.paths import plugins_at
from pvops_core.backends.loading.loader import load_object
from pvops_core.errors import PluginError, PvopsError, SwitchError, UsageError, unknown
from pvops_core.guest import find_symbol
from pvops_core.guests import BuiltinGuest
from pvops_core.runs.orders import SwitchDone
from pvops_core.switchboard.choosing import chosen
from pvops_core.switchboard.implementation import of_callable
from pvops_core.switchboard.kernel.ophook import arguments_of
from pvops_core.switchboard.ops import KERNEL

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.images import KernelImage
    from pvops_core.runs.orders import SwitchOrder
    from pvops_core.session import Session

BY: Final = "--switch"


class OrderedSwitch:
    """A switch that is made where an order says.

    Args:
        order: the order.
        session: whose guest it is for; it has not run yet.
        backends: its backend, that one's base, its base's base.

    Raises:
        UsageError: the guest has no such op or place, or there is no such implementation for it.
        PluginError: the function's module cannot be imported.
    """

    def __init__(self, order: SwitchOrder, session: Session, backends: Sequence[Backend]) -> None:
        table = session.known_table
        self._order, self._board = order, session.ops
        self._ops = [slot for slot in chosen(table.layout, [order.ops]) if not slot.op.is_data]
        self.made, self.refused = False, ""
        if order.what.startswith(f"{KERNEL}:") and not isinstance(session.guest, BuiltinGuest):
            self._make = self._to_function(session.guest.image)
        elif ":" in order.what:
            self._make = self._functions()
        else:
            own = () if isinstance(session.guest, BuiltinGuest) else (KERNEL,)
            there = (*(backend.name for backend in backends), *own)
            if order.what not in there:
                raise unknown("implementation", order.what, [*there, "MODULE:FUNCTION"])
            self._make = self._all_to_kernel if order.what == KERNEL else self._backend()
        if order.place:
            session.once_at(order.place, self._switch)
        else:
            self._switch()

    def _functions(self) -> Callable[[], None]:
        """Every op to a function."""
        board, function = self._board, _function(self._order.what)
        wanted = {slot.op.name: of_callable(slot.op.name, function, self._order.what) for slot in self._ops}
        for slot in self._ops:
            if strange := [each for each in wanted[slot.op.name].arguments if each not in arguments_of(slot.op)]:
                known = ", ".join(arguments_of(slot.op)) or "none"
                message = f"takes {strange[0]!r}; the arguments of {slot.op.name} are {known}"
                raise UsageError(f"{self._order.what} {message}")

        def make() -> None:
            for op, implementation in wanted.items():
                board.switch(op, implementation, by=BY)

        return make

    def _to_function(self, image: KernelImage) -> Callable[[], None]:
        """Every op to another function of the kernel's."""
        what = self._order.what
        find_symbol(image, what.partition(":")[2])

        def make() -> None:
            for slot in self._ops:
                self._board.switch(slot.op.name, what, by=BY)

        return make

    def _all_to_kernel(self) -> None:
        for slot in self._ops:
            self._board.switch(slot.op.name, KERNEL, by=BY)

    def _backend(self) -> Callable[[], None]:
        """Every op that the backend has a hook for to that; UsageError if it has none."""
        board, order = self._board, self._order
        problem: SwitchError | None = None
        for slot in self._ops:
            try:
                board.offered(slot.op.name, order.what)
                break
            except SwitchError as error:
                problem = problem or error
        else:
            raise UsageError(str(problem))

        def make() -> None:
            board.use(order.ops, backend=order.what, by=BY)

        return make

    def _switch(self) -> None:
        """Make it; that somebody is in the way is no fault of the run."""
        try:
            self._make()
            self.made = True
        except PvopsError as error:
            self.refused = str(error)

    @property
    def done(self) -> SwitchDone:
        """The order and what came of it."""
        order = self._order
        ops = tuple(sorted(slot.op.name for slot in self._ops))
        return SwitchDone(order.ops, order.what, order.place, made=self.made, refused=self.refused, of=ops)


def _function(text: str) -> Callable[..., Any]:
    try:
        function = load_object(next(plugins_at(text, "")))
    except PluginError as error:
        if isinstance(error.__cause__, AttributeError | ImportError | None):
            raise UsageError(str(error)) from error
        raise
    if not callable(function):
        raise UsageError(f"{text} is not callable")
    return function

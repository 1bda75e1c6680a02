"""Those who look inside a real kernel's boot, in the process that runs it.

With what a boot is looked at is imported when that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import UNSET
from msgspec.structs import asdict, replace

from pvops_core.backends.finding.paths import plugins_at
from pvops_core.backends.loading.loader import load_object
from pvops_core.errors import UsageError
from pvops_core.runs.inside import Inside
from pvops_core.runs.orders import HookDone
from pvops_core.runs.worker.serving import Serving

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.runs.orders import HookOrder
    from pvops_core.runs.wire import Inspection
    from pvops_core.session import Session
    from pvops_core.session.trace import Trace
    from pvops_core.session.verify import PatchingCheck
    from pvops_core.switchboard.kernel.ophook import OpHook


class Inspectors:
    """Those who look at one session.

    Args:
        asked: what for.
        session: has not run yet.
        backends: its backend, that one's base, its base's base.

    Raises:
        PvopsError: something that was asked for cannot be had of this kernel.
    """

    def __init__(self, asked: Inspection, session: Session, backends: Sequence[Backend]) -> None:
        self._check = _check(asked, session, backends) if asked.verify_patching else None
        self._trace = _trace(session) if asked.trace else None
        self._table = session.table if asked.trace else None
        self._serving = Serving(asked.ops, session, backends)
        self._hooks = [OrderedHook(order, session) for order in asked.hooks]

    @property
    def own_calls(self) -> dict[str, int]:
        """Op name -> how often a hook of the backend's own served it, and not one of its base's."""
        return self._serving.calls(own=True)

    @property
    def op_calls(self) -> dict[str, int]:
        """Op name -> how often it was called at the kernel's sites, inlined code included, where that was traced.

        Else how often a hook of a backend's served it.
        """
        if self._trace is None or self._table is None:
            return self._serving.calls()
        layout = self._table.layout
        return {layout.by_path(path).op.name: share.count for path, share in self._trace.ops.items()}

    def found(self) -> Inside:
        """What was seen."""
        return Inside(
            patching=self._check.found() if self._check else UNSET,
            ops=self._serving.found() or UNSET,
            hooks=tuple(hook.done for hook in self._hooks) or UNSET,
            trace=self._trace.found() if self._trace else UNSET,
        )


def _check(asked: Inspection, session: Session, backends: Sequence[Backend]) -> PatchingCheck:
    from pvops_core.backends.fills import fills_of  # noqa: PLC0415
    from pvops_core.patching.bootrecords import find_records  # noqa: PLC0415
    from pvops_core.session.verify import PatchingCheck  # noqa: PLC0415

    records = find_records(Path(asked.records), session.kernel.image.sha256) if asked.records else ()
    return PatchingCheck(session, fills_of(backends), records)


def _trace(session: Session) -> Trace:
    from pvops_core.session.trace import Trace  # noqa: PLC0415

    return Trace(session)


class OrderedHook:
    """A Python hook that is put in and taken out as an order says.

    Args:
        order: the order.
        session: whose kernel it is for.

    Raises:
        PluginError: the function cannot be imported.
        UsageError: the kernel has no such op, function or point.
        SwitchError: the function cannot be a hook of the op.
    """

    def __init__(self, order: HookOrder, session: Session) -> None:
        session.known_table.slot(order.op)
        self._order, self._hooks = order, session.hooks
        self._hook: OpHook | None = None
        self._out = False
        self._source = next(plugins_at(order.function, ""))
        function = load_object(self._source)
        if not callable(function):
            raise UsageError(f"{order.function} is not callable")
        session.hooks.check(order.op, function)
        if order.begin:
            session.once_at(order.begin, lambda: self._put_in(function))
        else:
            self._put_in(function)
        if order.end:
            session.once_at(order.end, self._take_out)

    def _put_in(self, function: Callable[..., int | None]) -> None:
        if not self._out:
            self._hook = self._hooks.install(self._order.op, function, self._order.function, source=self._source)

    def _take_out(self) -> None:
        self._out = True
        if self._hook is not None:
            self._hooks.remove(self._hook)

    @property
    def done(self) -> HookDone:
        """The order and what came of it."""
        hook, done = self._hook, HookDone(**asdict(self._order))
        if hook is None:
            return done
        return replace(
            done,
            calls=hook.calls,
            replaced=hook.replaced,
            sites=hook.sites,
            originals=tuple(hook.originals),
            standing=hook in self._hooks.standing,
        )

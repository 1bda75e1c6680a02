"""A slice of one instruction: it is cut before the second, as by a breakpoint at whatever that is.

So a step is nothing that the guest, or virtual time, can tell from no step. While a vCPU makes steps all its code calls
Python before each instruction; when it runs on there is nothing of that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.machine.engines import CODE_CALLBACK

if TYPE_CHECKING:
    from pvops_core.machine.cpu.vcpu import Vcpu
    from pvops_core.machine.engines import MovableHook
    from pvops_core.machine.exits.handlers import Handlers


class SingleSteps:
    """Those of one vCPU.

    Attributes:
        began: an instruction has begun since the last ``begin``.
    """

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers
        self._engine = handlers.engine
        self._hook: MovableHook | None = None
        self._stands = False
        self.began = False

    def prepare(self) -> MovableHook:
        """Have a hook that comes before those that are added from now on; for gates, which act where they are met."""
        if self._hook is None:
            self._hook = self._engine.movable_code_hook(self._engine.keep(CODE_CALLBACK(self._reached)))
        return self._hook

    def begin(self) -> None:
        """Let one instruction be executed next."""
        self.began = False
        if not self._stands:
            self.prepare().cover()
            self._stand(stands=True)

    def end(self) -> None:
        """Let it run on."""
        if self._stands:
            self.prepare().rest()
            self._stand(stands=False)

    def _stand(self, *, stands: bool) -> None:
        self._stands = self._engine.steps = stands
        self._engine.choose_stops()
        self._engine.flush_code()

    def _reached(self, _engine: int, at: int, _size: int, _data: int) -> None:
        if self.began:
            self._handlers.run_at(self._second, at)
        self.began = True

    def _second(self, _vcpu: Vcpu, _at: int) -> None:
        self._handlers.loop.interrupted = True

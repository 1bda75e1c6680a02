"""What is called at addresses: gates, breakpoints, the ends of calls, registers of devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.machine.cpu.faults import Reschedule
from pvops_core.machine.engines import CODE_CALLBACK, LOAD_CALLBACK, STORE_CALLBACK, StateWord

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pvops_core.machine.cpu.vcpu import Vcpu
    from pvops_core.machine.engines import Engine
    from pvops_core.machine.exits.handlers import Handlers
    from pvops_core.machine.exits.singlesteps import SingleSteps
    from pvops_core.machine.handler import GateHandler, MemoryDevice

_FRONTIER = int(StateWord.FRONTIER)
_ENDS: Final = 16
"""Places where calls may end that are remembered: hooking one drops all translated code."""


@attrs.define(eq=False)
class GateHook:
    """A hook that calls gates: the engine's handle of it, and what it is made of."""

    engine: Engine
    callback: object
    first: int
    last: int
    stops: bool
    handle: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.hook()

    def hook(self) -> None:
        """Stand, behind all hooks that there are."""
        self.handle = self.engine.hook_code(self.callback, self.first, self.last, stops=self.stops)


class AddressHooks:
    """Those of one engine."""

    def __init__(self, handlers: Handlers, steps: SingleSteps) -> None:
        self._handlers = handlers
        self._steps = steps
        self._vcpu = handlers.vcpu
        self._engine = handlers.engine
        self._state = handlers.state
        self._loop = handlers.loop
        self._ends: dict[int, int] = {}
        self._gates: list[GateHook] = []

    def hook_gates(self, begin: int, end: int) -> None:
        """Call the machine's gates for every instruction that starts in [begin, end].

        This is the way of every call of an op: what nearly always comes to a handler and nothing else is done in one
        function.
        """
        handlers, vcpu, loop, page_end = self._handlers, self._vcpu, self._loop, self._handlers.page_end
        gates, bound = loop.gates, loop.gates.bound
        self._steps.prepare()

        def reached(_engine: int, at: int, _size: int, _data: int) -> None:
            handler = bound.get(at)
            if handler is None or page_end.armed or handlers.postponed is not None:
                handlers.run_at(gates.call, at)
                return
            vcpu.rip_written = False
            try:
                handler(vcpu)
            except BaseException as error:  # noqa: BLE001 - handed on
                handlers.met(error)
            else:
                if not (vcpu.rip_written or loop.interrupted):
                    return
                gates.leave(vcpu, at)
            if handlers.stops():
                self._state[_FRONTIER] = at

        self._gates.append(GateHook(self._engine, CODE_CALLBACK(reached), begin, end, stops=True))

    def gates_last(self, first: int, last: int) -> None:
        """What has been hooked in [first, last] comes before gates, which have acted when they have been called."""
        for gate in self._gates:
            if gate.first <= last and first <= gate.last:
                self._engine.unhook_code(gate.handle)
                gate.hook()

    def stop_at(self, address: int) -> None:
        """From now on end the slice before an instruction at an address is executed, where a call is to end there."""
        hook = self._ends.pop(address, None)
        if hook is None:
            hook = self._engine.hook_code(CODE_CALLBACK(self._end), address, address)
        self._ends[address] = hook
        if len(self._ends) > _ENDS:
            self._engine.unhook_code(self._ends.pop(next(iter(self._ends))))

    def hook_at(self, address: int, action: Callable[[Vcpu, int], None], *, acts: bool) -> int:
        """Call ``action(vcpu, address)`` as a handler before an instruction is executed; gives the hook's number.

        Unless it acts, what it asks for beyond looking takes effect only at the end of the block.
        """
        return self.hook_range(address, address, action, acts=acts)

    def hook_range(self, first: int, last: int, action: Callable[[Vcpu, int], None], *, acts: bool = True) -> int:
        """As ``hook_at``, before every instruction that starts in [first, last]."""

        def reached(_engine: int, at: int, _size: int, _data: int) -> None:
            self._handlers.run_at(action, at)

        return self._engine.hook_code(CODE_CALLBACK(reached), first, last, stops=acts)

    def hook_gates_alone(self, first: int, last: int, gates: Mapping[int, tuple[GateHandler, int]]) -> GateHook:
        """Call the handler of each gate in [first, last] before its jump.

        The engine need not be able to stop within blocks for it, which would make all code slower: where it is to stop
        it does after the jump, which does nothing but move RIP, and RIP is set then. This is the way of every op of a
        kernel that Python serves, hence in one function.
        """
        handlers, vcpu, loop, page_end = self._handlers, self._vcpu, self._loop, self._handlers.page_end
        self._steps.prepare()

        def reached(_engine: int, at: int, _size: int, _data: int) -> None:
            gate = gates.get(at)
            if gate is None:
                return  # a jump between two gates
            vcpu.rip_written, again = False, False
            if page_end.armed:
                page_end.lift()
            try:
                if handlers.postponed is None:
                    gate[0](vcpu)
            except Reschedule:
                loop.reschedule()
                again = True
            except BaseException as error:  # noqa: BLE001 - handed on by the run loop
                loop.fail(error)
            if vcpu.rip_written or loop.interrupted:
                # Who has loaded a segment has written RIP only to make the engine begin anew, where it was.
                now = vcpu.rip
                handlers.destination = gate[1] if now == at and not again else now
                handlers.moved = True
                self._engine.stop()

        self._gates.append(GateHook(self._engine, CODE_CALLBACK(reached), first, last, stops=False))
        return self._gates[-1]

    def unhook_gates(self, hook: GateHook) -> None:
        """End ``hook_gates_alone``."""
        self._gates.remove(hook)
        self._engine.unhook_code(hook.handle)

    def unhook(self, hook: int) -> None:
        """Take a hook of ``hook_at`` or ``hook_range`` away."""
        self._engine.unhook_code(hook)

    def _end(self, _engine: int, address: int, _size: int, _data: int) -> None:
        if self._loop.arrive(address):
            self._handlers.left_before(address)
            self._engine.stop()

    def map_device(self, address: int, size: int, device: MemoryDevice) -> None:
        """Give loads and stores of a physical range to a device."""

        def load(_engine: int, offset: int, width: int, _data: int) -> int:
            return self._device(device.load, offset, width) or 0

        def store(_engine: int, offset: int, width: int, value: int, _data: int) -> None:
            self._device(device.store, offset, width, value)

        self._engine.map_device(address, size, LOAD_CALLBACK(load), STORE_CALLBACK(store))

    def _device(self, access: Callable[..., int | None], *arguments: int) -> int | None:
        """One access. The engine must not be stopped from here, since it would make the access once more."""
        result = None
        try:
            result = access(self._vcpu, *arguments)
        except BaseException as error:  # noqa: BLE001 - handed on by the run loop
            self._loop.fail(error)
        if self._loop.interrupted:
            self._vcpu.cut_short()
        return result

"""What the backends of a chain have for the ops of a table, found by pluggy."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import pluggy

from pvops_core import hookspecs
from pvops_core.backends.blame import of_source
from pvops_core.switchboard.implementation import Form, Implementation

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.ops import Layout, Slot


@attrs.frozen(eq=False)
class BoundBackend:
    """A backend and its ops, made for one machine.

    Attributes:
        backend: what the plugin declared.
        ops: an instance of its ops class; None if it has none.
    """

    backend: Backend
    ops: object | None

    @property
    def absent(self) -> Collection[str]:
        """Ops that the backend leaves as its base has them on this machine, whatever it declares."""
        absent: Collection[str] = getattr(self.ops, "absent", ())
        return absent


class OfferedOps:
    """What the backends of a chain have for every op and boot hook of a layout.

    As in the kernel, where a platform overwrites part of a native table, the first backend that says anything about
    an op decides; an op of which none does is an empty slot.

    Args:
        layout: the layout.
        bound: the backend in force, its base, its base's base.

    Raises:
        PluginError: a hook does not fit its specification.
    """

    def __init__(self, layout: Layout, bound: Sequence[BoundBackend]) -> None:
        self._layout = layout
        self._bound = tuple(bound)
        # pluggy lists implementations in the order of registration; the last is the one it would call first.
        self._hooks = pluggy.PluginManager(hookspecs.PROJECT)
        for module in hookspecs.MODULES:
            self._hooks.add_hookspecs(module)
        for one in reversed(self._bound):
            if one.ops is not None:
                _register(self._hooks, one)
        self._tables: dict[int, Mapping[str, Implementation]] = {}

    @property
    def backends(self) -> tuple[str, ...]:
        """Names of the chain's backends, the one in force first."""
        return tuple(one.backend.name for one in self._bound)

    @property
    def together(self) -> tuple[frozenset[str], ...]:
        """Groups of ops that share state in Python, of which none is switched without the others."""
        return tuple(group for one in self._bound for group in one.backend.together)

    def table(self, backend: str) -> Mapping[str, Implementation]:
        """Implementations by op with this backend of the chain in force; KeyError if it is not one of them."""
        if backend not in self.backends:
            raise KeyError(backend)
        first = self.backends.index(backend)
        if first not in self._tables:
            # An op that an upper backend leaves to its base is the base's implementation: one object, one gate.
            below = self.table(self.backends[first + 1]) if first + 1 < len(self._bound) else {}
            own = self._bound[first]
            # Its own first, then its base's: the same object as there, and so the same gate.
            self._tables[first] = {op: self._of(own, op) or below.get(op) or _none(op) for op in self._functions()}
        return self._tables[first]

    def _functions(self) -> Iterator[str]:
        for slot in (*self._layout.slots, *self._layout.boot_hooks):
            if not slot.op.is_data:
                yield slot.op.name

    def _of(self, bound: BoundBackend, op: str) -> Implementation | None:
        if op in bound.absent:
            return None
        backend, name = bound.backend, f"{bound.backend.name}.{op}"
        # Two backends register under their names, so that an implementation says whose it is.
        for hook in getattr(self._hooks.hook, op).get_hookimpls():
            if hook.plugin_name == backend.name:
                return _of_hook(op, name, backend, hook)
        if op in backend.nops:
            return Implementation(op, name, backend.name, Form.NOP)
        return Implementation(op, name, backend.name, Form.EMPTY) if op in backend.empty else None

    def data_values(self) -> Iterator[tuple[Slot, int]]:
        """The numbers that backends put into the layout's slots that are no functions."""
        for slot in self._layout.slots:
            if slot.op.is_data:
                value = getattr(self._hooks.hook, slot.op.name)()
                if isinstance(value, int):
                    yield slot, value


def _none(op: str) -> Implementation:
    return Implementation(op, f"none.{op}", "", Form.EMPTY)


def _register(manager: pluggy.PluginManager, bound: BoundBackend) -> None:
    name = bound.backend.name
    try:
        manager.register(bound.ops, name=name)
    except pluggy.PluginValidationError as error:
        raise of_source(bound.backend.source, str(error)) from error


def _of_hook(op: str, name: str, backend: Backend, hook: pluggy.HookImpl) -> Implementation:
    """A hook may leave out any argument, the vCPU (for ``patch`` the context) too."""
    function = hook.function
    if hook.argnames[:1] in (("cpu",), ("ctx",)):
        return Implementation(op, name, backend.name, Form.FUNCTION, function, tuple(hook.argnames[1:]), backend.source)

    def without_first(_first: object, *arguments: object) -> object:
        return function(*arguments)

    return Implementation(op, name, backend.name, Form.FUNCTION, without_first, tuple(hook.argnames), backend.source)

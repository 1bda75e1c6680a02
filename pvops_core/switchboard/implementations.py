"""Implementations of ops, and how they are found among backends."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import pluggy

from pvops_core import hookspecs
from pvops_core.errors import PluginError, SwitchError

if TYPE_CHECKING:
    from pvops_core.hookspecs import Backend
    from pvops_core.ops import Layout, Slot


class Form(enum.Enum):
    """What stands behind a slot."""

    FUNCTION = "function"
    """A Python callable behind a gate."""
    NOP = "nop"
    """The kernel's ``_paravirt_nop``."""
    EMPTY = "empty"
    """A null pointer; a call of it is a bug of the kernel (``paravirt_BUG``)."""


@attrs.frozen(eq=False)
class Implementation:
    """One way of doing an op.

    Attributes:
        op: the op's hook name.
        name: what people call it, for example ``xen.write_cr3``.
        backend: name of the backend it belongs to; empty for a callable from outside any backend. Sites of its op
            are patched by that backend's rules, or only ever turned into direct calls if it has none.
        form: what stands behind the slot.
        function: the callable, for a function.
        arguments: names of the arguments it takes after ``cpu`` (``ctx`` for ``patch``).
    """

    op: str
    name: str
    backend: str
    form: Form
    function: Callable[..., Any] | None = None
    arguments: tuple[str, ...] = ()


@attrs.frozen(eq=False)
class Bound:
    """A backend and its ops, made for one machine.

    Attributes:
        backend: what the plugin declared.
        ops: an instance of its ops class; None if it has none.
    """

    backend: Backend
    ops: object | None


def of_callable(op: str, function: Callable[..., Any], name: str = "", backend: str = "") -> Implementation:
    """The implementation that a callable is.

    Raises:
        SwitchError: it is not callable, or its signature cannot be read or has no first argument.
    """
    shown = name or getattr(function, "__qualname__", repr(function))
    if not callable(function):
        raise SwitchError(f"{function!r} is not callable", op=op, implementation=shown)
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise SwitchError(f"its signature cannot be read ({error})", op=op, implementation=shown) from error
    positional = [p.name for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
    if not positional:
        raise SwitchError("takes no argument; the first is the vCPU", op=op, implementation=shown)
    return Implementation(op, shown, backend, Form.FUNCTION, function, tuple(positional[1:]))


def resolve(layout: Layout, chain: Sequence[Bound]) -> dict[str, Implementation]:
    """Choose an implementation for every op and boot hook of a layout.

    Args:
        layout: the layout.
        chain: the backend, its base, its base's base. As in the kernel, where a platform overwrites part of a
            native table, the first that says anything about an op decides; an op of which none does is an empty slot.

    Raises:
        PluginError: a hook does not fit its specification.
    """
    manager = _manager(chain)
    return {
        slot.op.name: _resolve_one(manager, slot.op.name, chain)
        for slot in (*layout.slots, *layout.boot_hooks)
        if not slot.op.is_data
    }


def data_values(layout: Layout, chain: Sequence[Bound]) -> Iterator[tuple[Slot, int]]:
    """The numbers that backends put into a layout's slots that are no functions."""
    manager = _manager(chain)
    for slot in layout.slots:
        if slot.op.is_data:
            value = getattr(manager.hook, slot.op.name)()
            if isinstance(value, int):
                yield slot, value


def _manager(chain: Sequence[Bound]) -> pluggy.PluginManager:
    """The chain's ops, registered so that the first backend's come first."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    for module in hookspecs.MODULES:
        manager.add_hookspecs(module)
    for bound in reversed(chain):
        if bound.ops is not None:
            _register(manager, bound)
    return manager


def _register(manager: pluggy.PluginManager, bound: Bound) -> None:
    name = bound.backend.name
    try:
        manager.register(bound.ops, name=name)
    except pluggy.PluginValidationError as error:
        raise PluginError(str(error), entry_point=name) from error


def _resolve_one(manager: pluggy.PluginManager, op: str, chain: Iterable[Bound]) -> Implementation:
    caller = getattr(manager.hook, op)
    # pluggy lists implementations in the order of registration; the last is the one it would call first.
    hooks = {hook.plugin_name: hook for hook in caller.get_hookimpls()}
    for bound in chain:
        backend = bound.backend.name
        name = f"{backend}.{op}"
        if backend in hooks:
            return _of_hook(op, name, backend, hooks[backend])
        if op in bound.backend.nops:
            return Implementation(op, name, backend, Form.NOP)
        if op in bound.backend.empty:
            return Implementation(op, name, backend, Form.EMPTY)
    return Implementation(op, f"none.{op}", "", Form.EMPTY)


def _of_hook(op: str, name: str, backend: str, hook: pluggy.HookImpl) -> Implementation:
    """A hook may leave out any argument, the vCPU (for ``patch`` the context) too."""
    function = hook.function
    if hook.argnames[:1] in (("cpu",), ("ctx",)):
        return Implementation(op, name, backend, Form.FUNCTION, function, tuple(hook.argnames[1:]))

    def without_first(_first: object, *arguments: object) -> object:
        return function(*arguments)

    return Implementation(op, name, backend, Form.FUNCTION, without_first, tuple(hook.argnames))

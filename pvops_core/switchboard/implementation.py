"""An implementation of an op: what it is, and whose."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from pvops_core.errors import SwitchError

if TYPE_CHECKING:
    from pvops_core.backends.finding.found import Found


class Form(enum.Enum):
    """What stands behind a slot."""

    FUNCTION = "function"
    """A Python callable behind a gate."""
    NOP = "nop"
    """The kernel's ``_paravirt_nop``."""
    EMPTY = "empty"
    """A null pointer; a call of it is a bug of the kernel (``paravirt_BUG``)."""
    GUEST = "guest"
    """A function of the guest's own."""


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
        source: the plugin that it is from, if it is from one.
    """

    op: str
    name: str
    backend: str
    form: Form
    function: Callable[..., Any] | None = None
    arguments: tuple[str, ...] = ()
    source: Found | None = None


def of_callable(
    op: str, function: Callable[..., Any], name: str = "", backend: str = "", source: Found | None = None
) -> Implementation:
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
    # Only parameters with names say which of the op's arguments they want.
    positional = [p.name for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
    if not positional:
        raise SwitchError("takes no argument; the first is the vCPU", op=op, implementation=shown)
    return Implementation(op, shown, backend, Form.FUNCTION, function, tuple(positional[1:]), source)

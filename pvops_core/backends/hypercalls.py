"""Hypercalls of a platform of one's own: methods that say their number and name, and one way to make them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import attrs

if TYPE_CHECKING:
    from pvops_core.backends.platform import Platform

Serve = TypeVar("Serve", bound=Callable[..., int])
COST_NS: Final = 1000
"""Virtual time that a hypercall takes unless it says otherwise: an order of things, and no measurement."""
ENOSYS: Final = 38
"""Function not implemented (Linux, asm-generic/errno.h)."""
_MARK: Final = "pvops_hypercall"


@attrs.frozen
class Served:
    """A hypercall that a platform serves.

    Attributes:
        number: by which guest code asks for it.
        name: for people; counts and events have it.
        ns: virtual time that it takes.
        serve: called with the platform, the vCPU and the arguments; gives the result.
    """

    number: int
    name: str
    ns: int
    serve: Callable[..., int]


def hypercall(number: int, name: str = "", *, ns: int = COST_NS) -> Callable[[Serve], Serve]:
    """Mark a method of a platform as what serves a hypercall.

    The method is called with the vCPU and as many arguments as it takes, unsigned; those that the caller left out are
    0. It gives 0 or more, or a negative errno.

    Args:
        number: by which guest code asks for it.
        name: for people; the method's own unless given.
        ns: virtual time that it takes.
    """

    def mark(serve: Serve) -> Serve:
        setattr(serve, _MARK, Served(number, name or serve.__name__, ns, serve))
        return serve

    return mark


def table_of(platform: type[Platform]) -> Mapping[int | str, Served]:
    """What a class of platforms serves, its bases' calls among it, by number and by name.

    Raises:
        TypeError: two methods of one class serve the same.
    """
    table: dict[int | str, Served] = {}
    for each in reversed(platform.__mro__):
        own: dict[int | str, Served] = {}
        for value in vars(each).values():
            if isinstance(served := getattr(value, _MARK, None), Served):
                for key in (served.number, served.name):
                    if key in own:
                        both = f"{own[key].serve.__name__} and {served.serve.__name__}"
                        raise TypeError(f"{each.__name__} serves hypercall {key} twice, by {both}")
                own |= {served.number: served, served.name: served}
        table |= own
    return table


def fitted(serve: Callable[..., int], arguments: Sequence[int]) -> Sequence[int]:
    """As many arguments as a method takes behind the platform and the vCPU."""
    code = getattr(serve, "__code__", None)
    if code is None or code.co_flags & inspect.CO_VARARGS:
        return arguments
    wanted = code.co_argcount - 2
    return [*arguments[:wanted], *[0] * (wanted - len(arguments))]

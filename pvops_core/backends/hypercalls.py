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

    The method is called with the vCPU and as many arguments as it takes, unsigned; of guest code's, who asks by number,
    those that were left out are 0. It gives 0 or more, or a negative errno.

    Args:
        number: by which guest code asks for it.
        name: for people; the method's own unless given.
        ns: virtual time that it takes.

    Raises:
        TypeError: the number is no int, or the name no str: they may stand the wrong way round.
    """
    if callable(number):
        raise TypeError(f"{getattr(number, '__qualname__', number)}: @hypercall wants a number, as in @hypercall(1)")

    def mark(serve: Serve) -> Serve:
        # To Python True is a number.
        if isinstance(number, bool) or not isinstance(number, int) or not isinstance(name, str):
            raise TypeError(
                f"{serve.__qualname__} serves hypercall({number!r}, {name!r}): a number comes first, then a name"
            )
        setattr(serve, _MARK, Served(number, name or serve.__name__, ns, serve))
        return serve

    return mark


def table_of(platform: type[Platform]) -> Mapping[int | str, Served]:
    """What a class of platforms serves, its bases' calls among it, by number and by name.

    Raises:
        TypeError: two methods of one class serve the same.
    """
    table: dict[int | str, Served] = {}
    # Bases first, so that what a class serves itself takes their place.
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
    # The platform and the vCPU are not the guest's to give.
    wanted = code.co_argcount - 2
    return [*arguments[:wanted], *[0] * (wanted - len(arguments))]


def checked(platform: Platform, served: Served, arguments: Sequence[int]) -> None:
    """Whether a hook that makes a hypercall by its name gives what the method takes.

    Raises:
        TypeError: it gives more or less.
    """
    taken = inspect.signature(served.serve)
    try:
        taken.bind(platform, None, *arguments)
    except TypeError:
        shown = ", ".join(list(taken.parameters)[2:]) or "none"
        method = f"{type(platform).__name__}.{served.serve.__name__}"
        message = f"hypercall {served.name} was made with {len(arguments)} arguments; {method} takes {shown}"
        raise TypeError(message) from None

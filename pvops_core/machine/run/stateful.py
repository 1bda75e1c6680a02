"""What a snapshot holds of the Python side: plain data, which could as well be written to disk and read back.

Whoever takes part declares what its state is, as a ``NamedTuple`` of plain fields or a plain value. What cannot be
plain, a function above all, stays beside the state, which has its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, count
from typing import Generic, Protocol, TypeAlias, TypeVar, Union, runtime_checkable

from pvops_core.errors import MachineError

Plain: TypeAlias = Union[
    bool, int, float, str, bytes, "tuple[Plain, ...]", "list[Plain]", Mapping[str, "Plain"], Mapping[int, "Plain"], None
]
"""What a state may be made of. Sets are sorted tuples in it, arrays their bytes."""

S = TypeVar("S")
T = TypeVar("T")
W = TypeVar("W")


class Stateful(Protocol[S]):
    """Python state that belongs to a machine's snapshots; ``S`` is what one of its states is, and is ``Plain``."""

    def save(self) -> S:
        """The state, as something that later changes do not touch."""

    def load(self, state: S) -> None:
        """Go back to a saved state."""


@runtime_checkable
class Written(Protocol[S, W]):
    """Who is ``Stateful`` and is in files otherwise than in memory; what ``written`` declares that it gives is read."""

    def written(self, state: S) -> W:
        """What ``save`` gave, as it is in a file."""

    def read(self, written: W) -> S:
        """What ``load`` takes, of a file; MachineError where that cannot be."""


class Beside(Generic[T]):
    """Objects that states name. A name holds as long as this does, and elsewhere if the same is told there.

    Args:
        what: what they are, for messages.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._things: dict[str, T] = {}
        self._names: dict[int, str] = {}

    def name(self, thing: T, called: str) -> str:
        """The name of an object, the same whenever it is asked for; the object lives on here.

        Args:
            thing: the object.
            called: its name, unless another has that: those get a number.
        """
        found = self._names.get(id(thing))
        if found is None:
            numbered = (f"{called}#{number}" for number in count(2))
            found = next(name for name in chain((called,), numbered) if name not in self._things)
            self._names[id(thing)], self._things[found] = found, thing
        return found

    def find(self, name: str) -> T | None:
        """The object of a name, if there is one."""
        return self._things.get(name)

    def thing(self, name: str) -> T:
        """The object of a name.

        Raises:
            MachineError: the state is another machine's.
        """
        if name not in self._things:
            raise MachineError(f"a saved state names {self._what} {name!r}, which is not here")
        return self._things[name]


def where_not_plain(state: object, path: str = "state") -> str | None:
    """Where in a state there is something that is not plain, and what; None if it is plain throughout."""
    match state:
        case None | bool() | int() | float() | str() | bytes():
            return None
        case tuple() | list():
            fields = getattr(state, "_fields", None)
            places = (f".{name}" for name in fields) if fields else (f"[{index}]" for index in range(len(state)))
            parts = zip(places, state, strict=True)
        case Mapping():
            for key in state:
                if not isinstance(key, int | str):
                    return f"{path}: a key of type {type(key).__qualname__}"
            parts = zip((f"[{key!r}]" for key in state), state.values(), strict=True)
        case _:
            return f"{path}: {type(state).__qualname__}"
    return next((found for place, each in parts if (found := where_not_plain(each, path + place))), None)

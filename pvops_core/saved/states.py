"""The states of a machine's parts and keepers as bytes and back, each by the type that its owner declares."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, get_type_hints

import msgspec

from pvops_core.errors import MachineError
from pvops_core.machine.run.stateful import Written, where_not_plain
from pvops_core.saved.errors import SavedError

if TYPE_CHECKING:
    from pvops_core.machine import Machine
    from pvops_core.machine.machine import Snapshot
    from pvops_core.machine.run.stateful import Stateful

_COUNTS = "counts"


def encode(machine: Machine, snapshot: Snapshot) -> bytes:
    """A snapshot of a machine, but for its memory.

    Raises:
        SavedError: an owner's state is no plain data.
    """
    named: list[tuple[str, msgspec.Raw]] = []
    states = (*snapshot.parts, *(state for _owner, state in snapshot.keepers))
    for (name, owner), kept in zip(machine.owners.items(), states, strict=True):
        state = owner.written(kept) if isinstance(owner, Written) else kept
        try:
            _type_of(type(owner))
            named.append((name, msgspec.Raw(msgspec.msgpack.encode(state))))
        except (NameError, TypeError, OverflowError, ValueError) as failure:
            where = where_not_plain(state) or f"state: {failure}"
            raise SavedError(f"cannot be saved: {where}", field=name) from failure
    return msgspec.msgpack.encode([*named, (_COUNTS, dict(snapshot.counts))])


def decode(data: bytes, owners: Mapping[str, Stateful[Any]], path: str) -> tuple[dict[str, Any], dict[str, int]]:
    """The states by their owners' names, and the machine's counts.

    Args:
        data: what ``encode`` gave, or somebody else did.
        owners: who is here.
        path: of the file, for messages.

    Raises:
        SavedError: they are none, or of others than are here.
    """
    named = dict(_decoded(data, list[tuple[str, msgspec.Raw]], "states", path))
    counts: dict[str, int] = _decoded(named.pop(_COUNTS, b""), dict[str, int], _COUNTS, path)
    for missing, whose in ((named.keys() - owners, "here"), (owners.keys() - named.keys(), "in the file")):
        if missing:
            raise SavedError(f"has a part in the session, and there is none {whose}", path, field=min(missing))
    return {name: _state(owners[name], raw, name, path) for name, raw in named.items()}, counts


def _state(owner: Stateful[Any], raw: msgspec.Raw, name: str, path: str) -> Any:  # noqa: ANN401 - what annotations say
    kind = _type_of(type(owner))
    state = _decoded(raw, kind, name, path)
    try:
        return owner.read(state) if isinstance(owner, Written) else _tuples(state) if kind is Any else state
    except MachineError as failure:
        raise SavedError(f"does not fit: {failure}", path, field=name) from failure


def _decoded(data: bytes | msgspec.Raw, kind: Any, field: str, path: str) -> Any:  # noqa: ANN401 - what annotations say
    try:
        return _decoder(kind).decode(data)
    except (msgspec.MsgspecError, RecursionError) as failure:
        raise SavedError(f"is not as it is declared: {failure}", path, field=field) from failure


@cache
def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:  # noqa: ANN401 - what annotations say
    return msgspec.msgpack.Decoder(kind)


@cache
def _type_of(owner: type) -> Any:  # noqa: ANN401 - as above
    """What the owner's ``written`` or ``save`` says that it gives; anything plain where it says nothing.

    Raises:
        NameError: it names what is not there at run time; TypeError, a type that is not plain.
    """
    method: Any = getattr(owner, "written", None) or owner.save  # type: ignore[attr-defined] # Machine.keep saw to it
    holder = SimpleNamespace(__annotations__={"return": method.__annotations__.get("return", Any)})
    kind = get_type_hints(holder, method.__globals__)["return"]
    _decoder(kind)
    return kind


def _tuples(value: Any) -> Any:  # noqa: ANN401 - anything plain
    """Sequences of a state without a declared type: tuples, as states have them."""
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    return {key: _tuples(each) for key, each in value.items()} if isinstance(value, dict) else value

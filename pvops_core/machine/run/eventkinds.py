"""The kinds of events that a run's log has: each is declared once, where it is recorded, with its fields."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Mapping

TYPES: Final = ("int", "str", "bytes")


@attrs.frozen
class EventKind:
    """A kind of event.

    Attributes:
        name: as it stands in the log.
        owner: the module that records it.
        when: when it is recorded, as a sentence.
        fields: name -> its type (int, str or bytes) and what it says.
    """

    name: str
    owner: str
    when: str
    fields: Mapping[str, str]


KINDS: Final[dict[tuple[str, str], EventKind]] = {}
"""All that have been declared by modules that are loaded, by owner and name."""


def event_kind(name: str, when: str, /, **fields: str) -> str:
    """Declare a kind of event; at module level, beside who records it.

    Args:
        name: as it is to stand in the log, for ``EventLog.record``.
        when: when it is recorded.
        **fields: what ``record`` is given beside the vCPU: a type (int, str or bytes), a colon, and what it says.

    Returns:
        The name.

    Raises:
        MachineError: a field has no type.
    """
    for field, text in fields.items():
        if text.partition(":")[0] not in TYPES:
            raise MachineError(f"event {name!r}: field {field!r} has no type of {', '.join(TYPES)}: {text!r}")
    # The module is the caller's, so that nobody has to write it, or can write another's.
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    owner: str = frame.f_back.f_globals["__name__"]
    KINDS[owner, name] = EventKind(name, owner, when, fields)
    return name

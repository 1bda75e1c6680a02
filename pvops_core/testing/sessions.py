"""What tests need to know of a session, whichever guest it has."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

from pvops_core.boot import BootSession
from pvops_core.boot.symbols import find_symbol
from pvops_core.errors import ImageError, UsageError
from pvops_core.guests.session import Session
from pvops_core.session.calls import Calls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pvops_core.boot.slots import SlotWritten
    from pvops_core.images import KernelImage
    from pvops_core.ops import Slot
    from pvops_core.switchboard import Switch

AnySession = Session | BootSession
_DIRECT_MAP: Final = {32: 0xC0000000, 64: 0xFFFF888000000000}
"""PAGE_OFFSET: where Linux maps all memory one to one, unless ``page_offset_base`` says otherwise."""


def image_of(session: AnySession) -> KernelImage:
    """The guest's image."""
    return session.guest.image if isinstance(session, Session) else session.kernel.image


def calls_of(session: AnySession) -> Calls:
    """Makes calls in its guest."""
    image, machine = image_of(session), session.machine
    if isinstance(session, BootSession):
        find, table = partial(find_symbol, image), session.table
        if table is None:
            return Calls(machine, image.symbol_at, find)
        return Calls(machine, image.symbol_at, find, table.layout, table.target)
    return Calls(machine, image.symbol_at, partial(_find, session), session.layout, partial(_target, session))


def _find(session: Session, name: str) -> int:
    if name not in session.guest.symbols:
        raise UsageError(f"the guest has no function {name!r}")
    return session.guest.symbols[name]


def _target(session: Session, slot: Slot) -> int:
    """What a slot holds now."""
    place = session.guest.symbols[slot.symbol] + slot.offset
    return int.from_bytes(session.read(place, session.layout.pointer_size), "little")


def direct_map(session: AnySession) -> int:
    """Guest-virtual address at which the guest's kernel sees all of its memory, one to one."""
    if isinstance(session, Session):
        return session.guest.kernel_base
    size = session.machine.kind.pointer_size
    symbol = image_of(session).symbols.get("page_offset_base")
    try:
        base = session.image_memory.pointers(symbol, 1, size)[0] if symbol else 0
    except ImageError:
        base = 0
    return base or _DIRECT_MAP[8 * size]


def stack_size(session: AnySession) -> int:
    """Bytes of a kernel stack, to which it is aligned (THREAD_SIZE of Linux, STACK_SIZE of the built-in guest)."""
    return 16384 if isinstance(session, BootSession) and session.machine.kind.bits == 64 else 8192


def op_calls(session: AnySession) -> Counter[str]:
    """How often Python code has served each op: on a real kernel the hooks put in front of its own."""
    if isinstance(session, Session):
        return Counter(session.switchboard.calls)
    hooks = session.hooks.standing if session.table is not None else ()
    return Counter({hook.op: hook.calls for hook in hooks})


def switches(session: AnySession) -> Sequence[Switch | SlotWritten]:
    """The ops that were given another implementation so far."""
    if isinstance(session, Session):
        return session.switchboard.history
    return session.slots.history if session.slots is not None else ()

"""The built-in guest as live patching sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.errors import UsageError
from pvops_core.livepatch.control.manager import Livepatch
from pvops_core.livepatch.guest import BareCalls, PatchedGuest
from pvops_core.livepatch.payload.area import PayloadArea
from pvops_core.livepatch.payload.loading import load
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from pvops_core.session import Session

WORD: Final = "livepatch"
"""What the guest's command line must have for it to set pages aside."""
AREA_PAGES: Final = 1024
"""LIVEPATCH_FRAMES of the guest's memory.c: the last frames of its memory."""
STACK_SIZE: Final = 8192
"""STACK_SIZE of its types.h."""


def live_patches(session: Session) -> Livepatch:
    """Live patching of a session's guest, which has not run yet.

    Raises:
        UsageError: its command line has no word ``livepatch``, so it may use the pages that payloads would get.
    """
    guest, platform = session.builtin, session.platform
    # Nothing else tells whether the guest has kept the pages: it looks for the word itself.
    if WORD not in guest.cmdline.split():
        raise UsageError(f"the guest sets no pages aside for payloads without {WORD!r} on its command line")
    # The guest takes them from the end of what it was given.
    end = guest.kernel_base + platform.guest_memory
    area = PayloadArea(end - AREA_PAGES * PAGE, AREA_PAGES)
    patched = PatchedGuest.of(session, BareCalls(), area=area, stack_size=STACK_SIZE, features=platform.features)
    return Livepatch(patched, load)

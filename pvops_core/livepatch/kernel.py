"""A booted kernel as live patching sees it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pvops_core.errors import UsageError
from pvops_core.guest.stacks.tasks import tasks_of
from pvops_core.livepatch.control.manager import Livepatch
from pvops_core.livepatch.guest import BareCalls, PatchedGuest
from pvops_core.livepatch.payload import pages as payload_pages
from pvops_core.livepatch.payload.area import PayloadArea
from pvops_core.livepatch.payload.loading import load
from pvops_core.livepatch.payload.pages import KernelPages, base_of

if TYPE_CHECKING:
    from pvops_core.guest.space import KernelSpace
    from pvops_core.machine import Vcpu
    from pvops_core.session import Session

STACK_SIZES: Final = {64: 16384, 32: 8192}
"""THREAD_SIZE of Linux by width, where a kernel does not say (asm/page_64_types.h, page_32_types.h)."""


def live_patches(session: Session) -> Livepatch:
    """Live patching of a session's kernel. Payloads can be uploaded once it has mapped its text.

    Raises:
        UsageError: the session was made without ``livepatch``, so it has no frames for payloads, or the kernel's memory
            leaves no room for their addresses.
    """
    # Frames for payloads must be left out of the kernel's memory before it starts.
    if session.tool_frames < payload_pages.FRAMES:
        raise UsageError("the session keeps no memory for payloads; make it with tool_frames=payload_pages.FRAMES")
    machine, image, space = session.machine, session.kernel.image, session.space
    base = base_of(session)
    area = PayloadArea(base, payload_pages.PAGES)
    pages = KernelPages(session, space, base)
    # Text that the kernel's image does not have is found by the area's own pages.
    session.text.add(area, pages.machine_address)
    tasks, stack_size = tasks_of(image, machine, space)
    # A kernel's debug information says; without it the usual size does.
    stack_size = stack_size or STACK_SIZES[machine.kind.bits]
    guest = PatchedGuest.of(session, KernelCalls(space), area=area, stack_size=stack_size, pages=pages, tasks=tasks)
    return Livepatch(guest, load)


class KernelCalls(BareCalls):
    """Calls into a kernel on bare metal, whose processes may lack its address space (page-table isolation)."""

    def __init__(self, space: KernelSpace) -> None:
        self._space = space

    @contextmanager
    def kernel_mode(self, vcpu: Vcpu) -> Iterator[int]:
        """As it is done everywhere; then in the kernel's own address space, whatever the process has."""
        user = self.in_user_mode(vcpu)
        with super().kernel_mode(vcpu) as stack:
            # From user mode, with page-table isolation, CR3 has no kernel text but the entry code.
            if user:
                vcpu.cr3 = next(self._space.roots()).cr3
            yield stack

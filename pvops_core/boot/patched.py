"""A booted kernel as live patching sees it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pvops_core.boot import payload_pages
from pvops_core.boot.payload_pages import KernelPages, base_of
from pvops_core.boot.space import KernelSpace
from pvops_core.boot.tasks import tasks_of
from pvops_core.errors import UsageError
from pvops_core.livepatch.area import Area
from pvops_core.livepatch.guest import BareCalls, CallsIn, PatchedGuest, build_id_of
from pvops_core.livepatch.loading import load
from pvops_core.livepatch.manager import Livepatch

if TYPE_CHECKING:
    from pvops_core.boot.session import BootSession
    from pvops_core.machine import Vcpu

STACK_SIZES: Final = {64: 16384, 32: 8192}
"""THREAD_SIZE of Linux by width, where a kernel does not say (asm/page_64_types.h, page_32_types.h)."""


def live_patches(session: BootSession) -> Livepatch:
    """Live patching of a session's kernel. Payloads can be uploaded once it has mapped its text.

    Raises:
        UsageError: the session was made without ``livepatch``, so it has no frames for payloads, or the kernel's memory
            leaves no room for their addresses.
    """
    if not session.livepatch:
        raise UsageError("the session keeps no memory for payloads; make it with livepatch=True")
    machine, image, platform = session.machine, session.kernel.image, session.platform
    space = KernelSpace(session)
    base = base_of(session)
    area = Area(base, payload_pages.PAGES)
    pages = KernelPages(session, space, base)

    def translate(va: int) -> int:
        return pages.machine_address(va) if va in area else session.image_memory.machine_address(va)

    session.poker.reach(range(base, base + payload_pages.SIZE), pages.machine_address)
    tasks, stack_size = tasks_of(session, space)
    guest = PatchedGuest(
        machine=machine,
        poker=session.poker,
        translate=translate,
        symbols=image.symbols,
        build_id=build_id_of(image),
        area=area,
        stack_size=stack_size or STACK_SIZES[machine.kind.bits],
        calls=platform if isinstance(platform, CallsIn) else KernelCalls(space),
        pages=pages,
        tasks=tasks,
    )
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
            if user:
                vcpu.cr3 = next(self._space.roots()).cr3
            yield stack

"""What live patching needs to know of a guest: the seam between it and the built-in guest, a booted kernel, a test."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol, Required, TypedDict, Unpack, runtime_checkable

import attrs

from pvops_core.guest.stacks.returns import TaskStack, no_tasks
from pvops_core.guest.symbols import find_symbol
from pvops_core.livepatch.payload.area import MappedByGuest, Pages, PayloadArea
from pvops_core.patching.poke import Poke
from pvops_core.x86 import FLAG_IF, PAGE, PF

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.machine import Machine, Vcpu
    from pvops_core.patching.poke import Poker
    from pvops_core.session import Session

BUILD_ID_NOTE = 3
"""NT_GNU_BUILD_ID."""
# psABI, 3.2.2.
_STACK_ALIGNMENT = 16


@runtime_checkable
class CallsIn(Protocol):
    """What a platform says whose guest keeps its interrupt flag or privilege level elsewhere than in the CPU."""

    def interruptible(self, vcpu: Vcpu) -> bool:
        """Whether the guest would take an interrupt here and now."""

    def in_user_mode(self, vcpu: Vcpu) -> bool:
        """Whether user code is executing (and the kernel's stack is therefore empty)."""

    def kernel_mode(self, vcpu: Vcpu) -> AbstractContextManager[int]:
        """A context manager: the vCPU is in kernel mode with interrupts off meanwhile; it gives the stack pointer.

        Registers are put back by the caller, what the platform keeps elsewhere by the context manager.
        """


class BareCalls:
    """How it is where the CPU itself says."""

    def interruptible(self, vcpu: Vcpu) -> bool:
        """IF is set, and the instruction before did not put interrupts off."""
        return vcpu.interrupts_enabled and not vcpu.interrupt_shadow

    def in_user_mode(self, vcpu: Vcpu) -> bool:
        """Level 3."""
        return vcpu.cpl == 3

    @contextmanager
    def kernel_mode(self, vcpu: Vcpu) -> Iterator[int]:
        """From user mode as a trap would go: code segment of the page-fault gate, stack of the TSS, GS swapped."""
        # A page fault's gate is there in every kernel, and its handler saves all registers.
        if self.in_user_mode(vcpu):
            vcpu.deliver(PF, 0)
            # A 64-bit kernel's own entry code does so next, which is not going to run.
            if vcpu.in_64_bit_code:
                vcpu.insn.swapgs()
        # Nothing may interrupt a call that the kernel knows nothing of.
        vcpu.rflags &= ~FLAG_IF
        yield vcpu.rsp


class GuestParts(TypedDict, total=False):
    """What guests do not have in common, as :class:`PatchedGuest` explains it."""

    area: Required[PayloadArea]
    stack_size: Required[int]
    features: frozenset[int]
    pages: Pages
    tasks: Callable[[], Sequence[TaskStack]]


@attrs.frozen(kw_only=True, eq=False)
class PatchedGuest:
    """A guest that can be live-patched.

    Attributes:
        machine: its machine.
        poker: writes its text, the pages set aside included.
        translate: machine-physical address of a page of text or of a page set aside, given its virtual address.
        symbols: guest-virtual addresses of its symbols.
        find: address of a function by its name; UsageError where several have it. None: its symbols say.
        build_id: what payloads say they were built for.
        area: pages set aside, within 2 GiB of the text.
        pages: maps them into the guest, with the rights that each is to have.
        stack_size: a kernel stack's bytes, to which it is aligned.
        features: CPU features in force, for payloads' alternatives.
        calls: who says whether a vCPU can be called in.
        tasks: gives the stacks of all tasks as they are now, asked for when every vCPU is held.
    """

    machine: Machine
    poker: Poker
    translate: Callable[[int], int]
    symbols: Mapping[str, int]
    build_id: bytes
    area: PayloadArea
    stack_size: int
    features: frozenset[int] = frozenset()
    calls: BareCalls | CallsIn = attrs.field(factory=BareCalls)
    pages: Pages = attrs.field(factory=MappedByGuest)
    tasks: Callable[[], Sequence[TaskStack]] = no_tasks
    find: Callable[[str], int] | None = None

    @classmethod
    def of(cls, session: Session, calls: BareCalls, **own: Unpack[GuestParts]) -> PatchedGuest:
        """A session's guest: what every guest says of itself in one way, and what is its own.

        Args:
            session: the session.
            calls: who calls into it, unless its platform has a way of its own.
            own: the rest.
        """
        image, platform = session.guest.image, session.platform
        return cls(
            machine=session.machine,
            poker=session.poker,
            translate=session.text.machine_address,
            symbols=session.guest.symbols,
            build_id=build_id_of(image),
            calls=platform if isinstance(platform, CallsIn) else calls,
            find=partial(find_symbol, image),
            **own,
        )

    def read(self, va: int, length: int) -> bytes:
        """Bytes of its text, or of the pages set aside."""
        memory = self.machine.memory
        return b"".join(memory.read(pa, size) for pa, size in self._pieces(va, length))

    def write_text(self, va: int, data: bytes, by: str) -> None:
        """Write to pages set aside as text is written; one transaction."""
        # The old bytes are what the poker compares with; zeros mean that nobody has written there.
        old = self.read(va, len(data))
        self.poker.transaction([Poke(va, old, data, fresh=not any(old))], by=by)

    def write_data(self, va: int, data: bytes) -> None:
        """Write to pages set aside that hold no text."""
        done = 0
        for pa, size in self._pieces(va, len(data)):
            self.machine.memory.write(pa, data[done : done + size])
            done += size

    def _pieces(self, va: int, length: int) -> Iterator[tuple[int, int]]:
        while length > 0:
            # By pages, for frames of neighbours need not be neighbours.
            page, offset = va & -PAGE, va % PAGE
            size = min(PAGE - offset, length)
            yield self.translate(page) + offset, size
            va, length = va + size, length - size


def build_id_of(image: KernelImage) -> bytes:
    """An image's GNU build-id; of one that has none, the first 20 bytes of the SHA-256 of the image."""
    # The first of several, as ld puts one note first.
    for note in image.notes:
        if note.owner == "GNU" and note.type == BUILD_ID_NOTE and note.data:
            return note.data
    return hashlib.sha256(image.data).digest()[:20]

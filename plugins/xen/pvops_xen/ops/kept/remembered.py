"""What the ops remember for a guest that has no place for it: the built-in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pvops_xen.ops.frames import FrameNumbers
from pvops_xen.ops.multicalls import BatchState, Multicalls

if TYPE_CHECKING:
    from pvops_core.backends import Environment
    from pvops_xen.platform import XenPlatform

_V = TypeVar("_V")


class RememberedState(NamedTuple):
    """All of it, by the names of the attributes."""

    late: bool
    protected: tuple[int, ...]
    pinned: tuple[int, ...]
    user_roots: dict[int, int]
    cr3: dict[int, int]
    cr0: dict[int, int]
    gdt: dict[int, int]
    idt: dict[int, tuple[int, int]]
    tls: tuple[tuple[int, int, int], ...]
    batches: tuple[BatchState, ...]


class Remembered:
    """As :class:`~pvops_xen.ops.kept.linux.Linux`, in Python.

    Attributes:
        frames: machine and pseudo-physical frame numbers.
        calls: batches of hypercalls, one a vCPU.
        late: boot has got past the early page-table code.
        protected: pseudo-physical frames that must not be mapped writable: page tables in the making and in use,
            descriptor tables.
        pinned: those of them that are page tables under a pinned root (the kernel's PG_pinned).
        user_roots: pseudo-physical frame of a kernel root to virtual address of the user root that goes with it.
        cr3, cr0: vCPU to what write_cr3 and write_cr0 were last given.
        gdt, idt: vCPU to where its tables lie (the IDT with its size).
        tls: (vCPU, entry) to the TLS descriptor that its GDT holds.
    """

    def __init__(self, env: Environment, platform: XenPlatform) -> None:
        self.frames = FrameNumbers(platform)
        self.calls = [Multicalls(platform, cpu) for cpu in env.machine.vcpus]
        self.late = False
        self.protected: set[int] = set()
        self.pinned: set[int] = set()
        self.user_roots: dict[int, int] = {}
        self.cr3: dict[int, int] = {}
        self.cr0: dict[int, int] = {}
        self.gdt: dict[int, int] = {}
        self.idt: dict[int, tuple[int, int]] = {}
        self.tls: dict[tuple[int, int], int] = {}

    def save(self) -> RememberedState:
        """State for a snapshot."""
        return RememberedState(
            self.late,
            tuple(sorted(self.protected)),
            tuple(sorted(self.pinned)),
            dict(self.user_roots),
            dict(self.cr3),
            dict(self.cr0),
            dict(self.gdt),
            dict(self.idt),
            tuple((*which, value) for which, value in self.tls.items()),
            tuple(batch.save() for batch in self.calls),
        )

    def load(self, saved: RememberedState) -> None:
        """Take over what ``save`` gave; whoever holds a part of this goes on to hold it."""
        self.late = saved.late
        # In place: others hold these objects.
        for there, frames in ((self.protected, saved.protected), (self.pinned, saved.pinned)):
            there.clear()
            there.update(frames)
        _put(self.user_roots, saved.user_roots)
        _put(self.cr3, saved.cr3)
        _put(self.cr0, saved.cr0)
        _put(self.gdt, saved.gdt)
        _put(self.idt, saved.idt)
        _put(self.tls, {(vcpu, entry): value for vcpu, entry, value in saved.tls})
        for batch, state in zip(self.calls, saved.batches, strict=True):
            batch.load(state)


_Key = TypeVar("_Key")


def _put(there: dict[_Key, _V], saved: dict[_Key, _V]) -> None:
    there.clear()
    there.update(saved)

"""What the ops remember for a guest that has no place for it: the built-in one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from pvops_xen.ops.frames import FrameNumbers
from pvops_xen.ops.multicalls import Multicalls

if TYPE_CHECKING:
    from pvops_core.backends import Environment
    from pvops_xen.ops.multicalls import BatchState
    from pvops_xen.platform import XenPlatform

_K_contra = TypeVar("_K_contra", contravariant=True)
_V = TypeVar("_V")


class Kept(Protocol[_K_contra, _V]):
    """What is remembered, by vCPU or frame."""

    def get(self, key: _K_contra, /) -> _V | None: ...  # noqa: D102 - as of a dictionary

    def __setitem__(self, key: _K_contra, value: _V, /) -> None: ...


class Frames(Protocol):
    """Some frames, by number."""

    def add(self, pfn: int, /) -> None: ...  # noqa: D102 - as of a set

    def discard(self, pfn: int, /) -> None: ...  # noqa: D102 - as of a set

    def __contains__(self, pfn: object, /) -> bool: ...

    def __iter__(self) -> Iterator[int]: ...


class RememberedState(NamedTuple):
    """All of it, by the names of the attributes."""

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
    """As :class:`~pvops_xen.ops.linux.Linux`, in Python."""

    def __init__(self, env: Environment, platform: XenPlatform) -> None:
        self.frames = FrameNumbers(platform)
        self.calls = [Multicalls(platform, cpu) for cpu in env.machine.vcpus]
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

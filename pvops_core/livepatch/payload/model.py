"""What a payload is once it is in the guest: functions to replace, hooks to run, and who it may be applied on.

Source: xen/include/public/sysctl.h and xen/include/xen/livepatch.h (struct livepatch_func, livepatch_fstate).
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping

import attrs

PAYLOAD_VERSION = 2
"""The one version of ``struct livepatch_func`` that is taken."""
OPAQUE_SIZE = 31
"""Bytes of a function that can be saved, and so be turned into nops or expected (sizeof opaque)."""
NAME_SIZE = 128
"""Most bytes of a payload's name with its NUL (XEN_LIVEPATCH_NAME_SIZE)."""
MAX_SIZE = 2 << 20
"""Most bytes of a payload file (LIVEPATCH_MAX_SIZE)."""
LIST_LIMIT = 1024
"""Most payloads that one list operation tells of."""
DEFAULT_TIMEOUT_NS = 30_000_000
"""How long vCPUs may take to come, where an action does not say."""


class State(enum.IntEnum):
    """States of a payload (LIVEPATCH_STATE_*)."""

    CHECKED = 1
    APPLIED = 2


class Command(enum.IntEnum):
    """Actions (LIVEPATCH_ACTION_*)."""

    UNLOAD = 1
    REVERT = 2
    APPLY = 3
    REPLACE = 4


class ActionFlag(enum.IntFlag):
    """Flags of an action."""

    NODEPS = 1
    """Apply whatever the payload depends on."""


class UploadFlag(enum.IntFlag):
    """Flags of the whole operation."""

    FORCE = 1
    """Do not compare the guest's build-id; unknown flags beside it are let pass."""


@attrs.frozen
class Function:
    """One function to replace (``struct livepatch_func``).

    Attributes:
        name: its symbol.
        old_address: guest-virtual address of the function in force.
        old_size: its bytes.
        offset: where in it the change begins: 4 behind an ``endbr64``, else 0.
        new_address: guest-virtual address of its replacement; 0 where it becomes nops.
        new: the bytes that are written at ``old_address + offset``.
        expected: bytes that must be at ``old_address`` before it is applied; empty where nothing is expected.
    """

    name: str
    old_address: int
    old_size: int
    offset: int
    new_address: int
    new: bytes
    expected: bytes = b""

    @property
    def place(self) -> int:
        """Guest-virtual address of the first byte written."""
        return self.old_address + self.offset


class HookPhase(enum.Enum):
    """When a hook runs; the values are what its section's name ends with."""

    LOAD = "load"
    UNLOAD = "unload"
    PREAPPLY = "preapply"
    APPLY = "apply"
    POSTAPPLY = "postapply"
    PREREVERT = "prerevert"
    REVERT = "revert"
    POSTREVERT = "postrevert"

    @property
    def in_quiet_zone(self) -> bool:
        """Whether it runs while every vCPU is held."""
        return self in {HookPhase.LOAD, HookPhase.UNLOAD, HookPhase.APPLY, HookPhase.REVERT}

    @property
    def takes_payload(self) -> bool:
        """Whether it is called with the guest's address of its payload's description."""
        return self not in {HookPhase.LOAD, HookPhase.UNLOAD}

    @property
    def result(self) -> bool:
        """Whether it returns an int."""
        return self in {HookPhase.PREAPPLY, HookPhase.PREREVERT, HookPhase.APPLY, HookPhase.REVERT}


@attrs.frozen
class Hooks:
    """Guest-virtual addresses of hooks by when they run; there is one at most of all but load and unload."""

    by_phase: Mapping[HookPhase, tuple[int, ...]] = attrs.field(factory=dict)

    def of(self, phase: HookPhase) -> tuple[int, ...]:
        """The hooks of a phase, in the order of their section."""
        return self.by_phase.get(phase, ())

    @property
    def outside(self) -> bool:
        """Whether any runs outside the quiet zone, which REPLACE does not allow."""
        return any(self.of(phase) for phase in HookPhase if not phase.in_quiet_zone)

    def __iter__(self) -> Iterator[HookPhase]:
        return (phase for phase in HookPhase if self.of(phase))


@attrs.frozen(kw_only=True)
class Payload:
    """A payload as uploaded (``struct payload``).

    Attributes:
        name: what operations call it.
        build_id: its own.
        depends: the build-id that must be the last one applied.
        functions: what it replaces, in the order of ``.livepatch.funcs``.
        hooks: what it runs.
        metadata: ``.modinfo``: ``key=value``, each ended by a NUL.
        symbols: name to guest-virtual address of the symbols that it adds; later payloads may refer to them.
        reappliable: it may be applied again after a revert, having no data that may have changed.
        handle: guest-virtual address of its ``struct payload``, which hooks are given; 0 if it has none.
    """

    name: str
    build_id: bytes
    depends: bytes
    functions: tuple[Function, ...] = ()
    hooks: Hooks = attrs.field(factory=Hooks)
    metadata: bytes = b""
    symbols: Mapping[str, int] = attrs.field(factory=dict)
    reappliable: bool = True
    handle: int = 0


@attrs.define(eq=False)
class Record:
    """A payload and where it stands.

    Attributes:
        payload: the payload.
        state: CHECKED or APPLIED.
        rc: 0, or the negative errno of the last action; ``-EAGAIN`` while one is under way.
        reverted: it has been applied and reverted.
        saved: for each function that is applied, the bytes it replaced; None for one that is not.
    """

    payload: Payload
    state: State = State.CHECKED
    rc: int = 0
    reverted: bool = False
    saved: list[bytes | None] = attrs.field()

    @saved.default
    def _nothing_saved(self) -> list[bytes | None]:
        return [None] * len(self.payload.functions)

    @property
    def name(self) -> str:
        """The payload's name."""
        return self.payload.name

"""What parent and worker say to each other: one JSON document a line.

The parent writes one request and then keeps the worker's standard input open; its end is the worker's sign to
go. Until then it may write what is typed at the guest's console. The worker writes any number of messages, the last
of which is the observation. A worker that stays may then be asked again; it tells of each process that it makes.
"""

from __future__ import annotations

import enum
import json
from typing import Any, Final

from msgspec import convert

from pvops_core.backends.keyboard import Stroke
from pvops_core.errors import clean
from pvops_core.gdb.orders import DebugOrders
from pvops_core.livepatch.control.orders import NOTHING, PatchOrders
from pvops_core.records import JsonRecord, line
from pvops_core.runs.cell import Cell
from pvops_core.runs.observation import Observation
from pvops_core.runs.orders import DumpOrder, HookOrder, SwitchOrder

TERMINAL: Final = "_PVOPS_TERMINAL"
"""Environment variable of a worker: two numbers of descriptors, for a debugger."""
MARK: Final = b"\0"
"""A worker writes it to standard error when its plugins are loaded: what comes before was said in the parent too."""


class WorkerPhase(enum.Enum):
    """How far a worker has come; named when it dies."""

    STARTING = "starting Python"
    LOADING = "loading backends"
    BUILDING = "building the machine"
    RUNNING = "running the guest"
    COLLECTING = "collecting what was observed"


class Inspection(JsonRecord, frozen=True):
    """What a real kernel's boot is looked at for.

    Attributes:
        verify_patching: hold what the kernel patches against our patcher's plan.
        records: folder of records of real boots to hold it against too; empty for none.
        hooks: Python hooks to be put into its ops.
        trace: count and time its ops, hypercalls and traps.
        ops: patterns of the ops that the backend's own hooks are to serve, none for all; None for no op.
    """

    verify_patching: bool = False
    records: str = ""
    hooks: tuple[HookOrder, ...] = ()
    trace: bool = False
    ops: tuple[str, ...] | None = None


class Request(JsonRecord, frozen=True):
    """One run to be made by a worker.

    Attributes:
        cell: the run.
        plugins: paths given with ``--plugin``.
        without: plugins that are known not to load, and are not tried again.
        max_ns: limit of virtual time in nanoseconds, if any.
        max_seconds: limit of wall time, from the guest's first instruction, if any: the worker ends the run itself, so
            that it can say where the guest was.
        examine: whether to read a real kernel's call sites and note when it comes to the points of interest.
        until: console text at which a real kernel's run ends; empty for none.
        stop_at: symbol or named point at which a real kernel's run ends; empty for none.
        events: file that the event log is written to, if any.
        typed: what is typed at a real kernel's console, there from the start.
        live: more may be typed while it runs, and is told in lines that follow.
        replayed: what was typed in another run of the same, and is typed again at the same moments; None where
            somebody types, or nobody does.
        attended: it is a person at a terminal who types.
        inside: what a real kernel's run is looked at for.
        switches: ops that are given another implementation.
        dumps: dumps of its memory that are to be written.
        patching: what is done to a real kernel's live patches while it runs.
        load: file of a saved session that the run goes on from; empty for the beginning.
        save: file that the session is written to where the run ends at ``stop_at`` or ``until``; empty for none.
        pdb: open a prompt at the end of a run that fails.
        gdb: where a debugger may come, if one may.
    """

    cell: Cell
    plugins: tuple[str, ...] = ()
    max_ns: int | None = None
    events: str | None = None
    max_seconds: float | None = None
    examine: bool = False
    until: str = ""
    stop_at: str = ""
    typed: bytes = b""
    live: bool = False
    replayed: tuple[Stroke, ...] | None = None
    attended: bool = False
    inside: Inspection = Inspection()
    switches: tuple[SwitchOrder, ...] = ()
    dumps: tuple[DumpOrder, ...] = ()
    patching: PatchOrders = NOTHING
    without: tuple[str, ...] = ()
    load: str = ""
    save: str = ""
    pdb: bool = False
    gdb: DebugOrders | None = None


class Began(JsonRecord, frozen=True):
    """A worker that stays has made a process for the run, with this number."""

    pid: int


class Ended(JsonRecord, frozen=True):
    """That process has ended: its exit status, or a signal's number below 0. Nothing more comes of the run."""

    status: int


class Said(JsonRecord, frozen=True):
    """A line that a plugin has printed or logged.

    Attributes:
        text: the line, without its end.
        stream: ``stdout``, ``stderr`` or ``log``; empty where it came past Python's streams.
        who: ``backend.op`` of the hook, else the module that said it; empty where that is not known.
        vcpu: index of the vCPU that was served, if one was.
        ns: virtual time, where that is known.
    """

    text: str
    stream: str = ""
    who: str = ""
    vcpu: int | None = None
    ns: int | None = None

    def __str__(self) -> str:
        """The line for people: ``[demo.write_cr3, vcpu 0, 1234 ns] text``."""
        place = [self.who, "" if self.vcpu is None else f"vcpu {self.vcpu}", "" if self.ns is None else f"{self.ns} ns"]
        return f"[{', '.join(filter(None, place)) or 'plugin'}] {clean(self.text)}"


class Debugging(JsonRecord, frozen=True):
    """A debugger has the run, or has given it back; from the first on no limit of time counts."""

    going_on: bool


class Progress(JsonRecord, frozen=True):
    """How far a guest has come that somebody waits for and that has not printed anything.

    Attributes:
        ns: virtual time.
        point: the named point of its boot that it passed last; empty for none.
        vcpus: how many it has started.
    """

    ns: int
    point: str
    vcpus: int


class Standing(JsonRecord, frozen=True):
    """The guest stands for somebody who looks at it, and its time does not count; or it goes on."""

    stands: bool


class Typed(JsonRecord, frozen=True):
    """Something was typed; nothing means that nothing will be any more.

    Attributes:
        typed: the bytes.
        leaving: why whoever types ends the run; empty if it goes on.
        asking: they want a prompt.
    """

    typed: bytes
    leaving: str = ""
    asking: bool = False


Message = WorkerPhase | str | Observation | Began | Ended | Said | Debugging | Progress | Stroke | Standing
"""A step taken, a piece of console text, the end; or what a worker that stays tells of its processes."""
_KINDS: Final[dict[str, type]] = {
    "phase": WorkerPhase,
    "console": str,
    "observation": Observation,
    "began": Began,
    "ended": Ended,
    "said": Said,
    "debugging": Debugging,
    "progress": Progress,
    "stroke": Stroke,
    "standing": Standing,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


def encode(message: Message) -> bytes:
    """The message's line."""
    return line({_NAMES[type(message)]: message})


def decode(text: bytes) -> Message:
    """The message of a line.

    Raises:
        ValueError: it is not one.
        RecursionError: it is nested too deep.
    """
    named = convert(json.loads(text), dict[str, Any])
    if len(named) != 1 or not named.keys() <= _KINDS.keys():
        raise ValueError("not a message of a worker")
    ((name, message),) = named.items()
    found: Message = convert(message, _KINDS[name])
    return found

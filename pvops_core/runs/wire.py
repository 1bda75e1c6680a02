"""What parent and worker say to each other: one JSON document a line.

The parent writes one request and then keeps the worker's standard input open; its end is the worker's sign to
go. Until then it may write what is typed at the guest's console. The worker writes any number of messages, the last
of which is the observation. A worker that stays may then be asked again; it tells of each process that it makes.
"""

from __future__ import annotations

import enum
import json
import re
from typing import Any, Final

import attrs

from pvops_core.errors import UsageError, clean
from pvops_core.livepatch.control.orders import NOTHING, PatchOrders
from pvops_core.runs.cell import Cell
from pvops_core.runs.observation import Observation
from pvops_core.runs.switchorders import SwitchOrder

_HOOK: Final = re.compile(
    r"(?P<op>[\w.]+)=(?P<function>[^@]+:[A-Za-z_][\w.]*)(?:@(?P<begin>[\w.,@+-]*?)(?:\.\.(?P<end>[\w.,@+-]+))?)?\Z"
)
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


@attrs.frozen
class HookOrder:
    """A Python hook to be put into a real kernel's op.

    Attributes:
        op: hook name of the op, or the kernel's path of it.
        function: where the hook is: ``module:function`` or ``file.py:function``.
        begin: function of the kernel's, or named point of its boot, at which it is put in; empty for at once.
        end: the same for when it is taken out; empty for never.
    """

    op: str
    function: str
    begin: str = ""
    end: str = ""

    @classmethod
    def parse(cls, text: str) -> HookOrder:
        """The order in ``OP=MODULE:FUNCTION[@BEGIN[..END]]``.

        Raises:
            UsageError: it is none.
        """
        match = _HOOK.match(text)
        if match is None:
            raise UsageError(f"{text!r} is not OP=MODULE:FUNCTION, or OP=MODULE:FUNCTION@BEGIN..END")
        return cls(match["op"], match["function"], match["begin"] or "", match["end"] or "")


@attrs.frozen
class Inspection:
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

    @classmethod
    def from_json(cls, document: Any) -> Inspection:  # noqa: ANN401 -- whatever a JSON parser returned
        """What was made of it by ``attrs.asdict`` and JSON; TypeError, KeyError or ValueError for anything else."""
        fields = dict(document)
        ops = fields.pop("ops", None)
        hooks = tuple(HookOrder(**each) for each in fields.pop("hooks"))
        return cls(hooks=hooks, ops=None if ops is None else tuple(ops), **fields)


@attrs.frozen
class Request:
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
        attended: it is a person at a terminal who types.
        inside: what a real kernel's run is looked at for.
        switches: ops that are given another implementation.
        patching: what is done to a real kernel's live patches while it runs.
    """

    cell: Cell
    plugins: tuple[str, ...] = ()
    without: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    max_ns: int | None = None
    events: str | None = None
    max_seconds: float | None = None
    examine: bool = False
    until: str = ""
    stop_at: str = ""
    typed: bytes = b""
    live: bool = False
    attended: bool = False
    inside: Inspection = Inspection()
    switches: tuple[SwitchOrder, ...] = ()
    patching: PatchOrders = NOTHING

    def encode(self) -> bytes:
        """The request's line."""
        return _line(attrs.asdict(self) | {"cell": self.cell.to_json(), "typed": self.typed.hex()})

    @classmethod
    def decode(cls, line: bytes) -> Request:
        """The request of a line.

        Raises:
            TypeError, ValueError, KeyError: it is not one.
        """
        fields = json.loads(line)
        cell, typed = Cell.from_json(fields.pop("cell")), bytes.fromhex(fields.pop("typed"))
        inside, patching = Inspection.from_json(fields.pop("inside")), PatchOrders(**fields.pop("patching"))
        plugins, switches = fields.pop("plugins"), tuple(SwitchOrder(**each) for each in fields.pop("switches"))
        fields |= {"typed": typed, "inside": inside, "switches": switches, "patching": patching}
        return cls(cell, tuple(plugins), **fields | {"without": tuple(fields["without"])})


@attrs.frozen
class Began:
    """A worker that stays has made a process for the run, with this number."""

    pid: int = attrs.field(validator=attrs.validators.instance_of(int))


@attrs.frozen
class Ended:
    """That process has ended: its exit status, or a signal's number below 0. Nothing more comes of the run."""

    status: int = attrs.field(validator=attrs.validators.instance_of(int))


@attrs.frozen
class Said:
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


@attrs.frozen
class Debugging:
    """A debugger has the run, or has given it back; from the first on no limit of time counts."""

    going_on: bool = attrs.field(validator=attrs.validators.instance_of(bool))


Message = WorkerPhase | str | Observation | Began | Ended | Said | Debugging
"""A step taken, a piece of console text, the end; or what a worker that stays tells of its processes."""


def encode(message: Message) -> bytes:  # noqa: PLR0911 - one for each kind
    """The message's line."""
    match message:
        case WorkerPhase():
            return _line({"phase": message.value})
        case str():
            return _line({"console": message})
        case Observation():
            return _line({"observation": message.to_json()})
        case Began():
            return _line({"began": message.pid})
        case Ended():
            return _line({"ended": message.status})
        case Said():
            return _line({"said": attrs.asdict(message)})
        case Debugging():
            return _line({"debugging": message.going_on})


def decode(line: bytes) -> Message:  # noqa: PLR0911 - one for each kind
    """The message of a line.

    Raises:
        TypeError, ValueError, KeyError: it is not one.
    """
    match json.loads(line):
        case {"phase": str(value)}:
            return WorkerPhase(value)
        case {"console": str(text)}:
            return text
        case {"observation": document}:
            return Observation.from_json(document)
        case {"began": pid}:
            return Began(pid)
        case {"ended": status}:
            return Ended(status)
        case {"said": dict(fields)}:
            return Said(**fields)
        case {"debugging": going_on}:
            return Debugging(going_on)
    raise ValueError("not a message of a worker")


def encode_typed(data: bytes) -> bytes:
    """The line for something that was typed; nothing means that nothing will be any more."""
    return _line({"typed": data.hex()})


def decode_typed(line: bytes) -> bytes:
    """What the line says was typed.

    Raises:
        TypeError, ValueError, KeyError: it says no such thing.
    """
    return bytes.fromhex(json.loads(line)["typed"])


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode() + b"\n"

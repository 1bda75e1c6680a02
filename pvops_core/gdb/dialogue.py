"""What is answered to each packet, and what the guest is to do then. Packets are the GDB manual's, by their names."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final

import attrs

from pvops_core.errors import PvopsError
from pvops_core.gdb.errors import REFUSED, PacketError
from pvops_core.gdb.packets import PACKET_SIZE
from pvops_core.gdb.stopplaces import KINDS, Hit, StopPlace

if TYPE_CHECKING:
    from pvops_core.gdb.target import GdbTarget

SIGINT, SIGTRAP, SIGABRT = 2, 5, 6
"""GDB's own numbers (include/gdb/signals.def)."""
_FEATURES: Final = (
    f"PacketSize={PACKET_SIZE:x};QStartNoAckMode+;qXfer:features:read+;qXfer:threads:read+;swbreak+;hwbreak+;"
    "vContSupported+;binary-upload+"
)
_HEX: Final = "[0-9a-fA-F]{1,16}"
_RANGE: Final = re.compile(rf"({_HEX}),({_HEX})\Z".encode())
_WRITE: Final = re.compile(rf"({_HEX}),({_HEX}):(.*)\Z".encode(), re.DOTALL)
_REGISTER: Final = re.compile(rf"({_HEX})=((?:[0-9a-fA-F]{{2}})+)\Z".encode())
_PLACE: Final = re.compile(rf"([0-4]),({_HEX}),({_HEX})\Z".encode())
_XFER: Final = re.compile(rf"(features|threads):read:([^:]*):({_HEX}),({_HEX})\Z".encode())
_THREAD: Final = re.compile(rf"(-1|{_HEX})\Z".encode())
_ACTION: Final = re.compile(rf"(?:[cs]|[CS][0-9a-fA-F]{{2}})(?::(-1|{_HEX}))?\Z".encode())
_BYTES: Final = re.compile(rb"(?:[0-9a-fA-F]{2})*\Z")
_LONGEST: Final = PACKET_SIZE // 2 - 2
"""Bytes that one reply has room for: as hexadecimal digits, or with all of them escaped."""
_TEXT: Final = 2048
"""Bytes of a command's output in one packet."""


@attrs.frozen
class Resume:
    """The guest goes on.

    Attributes:
        stepping: threads of which the first that comes to it executes one instruction.
        going: those that run.
    """

    stepping: frozenset[int]
    going: frozenset[int]


@attrs.frozen
class Leave:
    """The debugger goes.

    Attributes:
        killing: the run is to end.
        replies: what is answered before.
    """

    killing: bool
    replies: tuple[bytes, ...] = (b"OK",)


Answer = tuple[bytes, ...] | Resume | Leave
"""Payloads to send, in order; none of them is a resumption, which is answered when the guest stops."""


class Dialogue:
    """One debugger's conversation with a target.

    Args:
        target: the guest.

    Attributes:
        acknowledges: each packet is acknowledged, as long as nobody has asked for the contrary.
        thread: the one that stopped last.
    """

    def __init__(self, target: GdbTarget) -> None:
        self._target = target
        self._supported: frozenset[str] = frozenset()
        self._general: int | None = None
        self._resumed: int | None = None
        self.acknowledges = True
        self.thread = 1
        self._stop = b""

    def answer(self, packet: bytes) -> Answer:
        """The answer to a packet's payload; an empty payload for one that is not known, as the protocol has it."""
        for name, serve in self._SERVED:
            if packet.startswith(name):
                try:
                    found = serve(self, packet[len(name) :])
                except PacketError as error:
                    found = b"E%02d" % error.number
                except PvopsError:
                    found = b"E%02d" % REFUSED
                return (found,) if isinstance(found, bytes) else found
        return (b"",)

    def stopped(self, signal: int, thread: int, hit: Hit | None = None) -> bytes:
        """The guest has stopped: what to tell of it, now and when asked again."""
        self.thread, self._general, self._resumed = thread, None, None
        why = ""
        if hit is not None and hit.place.watches:
            why = f"{KINDS[hit.place.kind]}:{hit.place.address:x};"
        elif hit is not None and KINDS[hit.place.kind] in self._supported:
            why = f"{KINDS[hit.place.kind]}:;"
        self._stop = f"T{signal:02x}{why}thread:{thread:x};".encode()
        return self._stop

    # Queries ------------------------------------------------------------------------------------------------------

    def _why(self, _rest: bytes) -> bytes:
        return self._stop

    def _features(self, rest: bytes) -> bytes:
        told = rest.removeprefix(b":").decode("latin-1").split(";")
        self._supported = frozenset(each.removesuffix("+") for each in told if each.endswith("+"))
        return _FEATURES.encode()

    def _no_acknowledgements(self, rest: bytes) -> bytes:
        if rest:
            return b""
        self.acknowledges = False
        return b"OK"

    def _transfer(self, rest: bytes) -> bytes:
        what, annex, start, length = _matched(_XFER, rest)
        document = self._target.description if what == b"features" else self._target.thread_list
        if annex != (b"target.xml" if what == b"features" else b""):
            raise PacketError(f"there is no {annex.decode('latin-1')!r}")
        at, size = int(start, 16), min(int(length, 16), _LONGEST)
        return (b"l" if at + size >= len(document) else b"m") + document[at : at + size]

    def _command(self, rest: bytes) -> tuple[bytes, ...]:
        text = self._target.monitor.answer(_bytes(rest).decode("utf-8", "replace")).encode()
        pieces = [text[at : at + _TEXT] for at in range(0, len(text), _TEXT)]
        return (*(b"O" + piece.hex().encode() for piece in pieces), b"OK")

    def _threads(self, _rest: bytes) -> bytes:
        return b"m" + ",".join(f"{thread:x}" for thread in self._target.threads).encode()

    def _about(self, rest: bytes) -> bytes:
        return self._target.about(_thread(rest)).encode().hex().encode()

    def _current(self, rest: bytes) -> bytes:
        return b"" if rest else b"QC%x" % self.thread

    def _alive(self, rest: bytes) -> bytes:
        self._target.vcpu(_thread(rest))
        return b"OK"

    def _select(self, rest: bytes) -> bytes:
        thread = _thread(rest[1:])
        if thread > 0:
            self._target.vcpu(thread)
        chosen = thread if thread > 0 else None
        if rest[:1] == b"g":
            self._general = chosen
        elif rest[:1] == b"c":
            self._resumed = chosen
        else:
            return b""
        return b"OK"

    # Registers and memory of the thread that is selected ----------------------------------------------------------

    @property
    def _seen(self) -> int:
        return self._general or self.thread

    def _read_all(self, _rest: bytes) -> bytes:
        return self._target.read_registers(self._seen).hex().encode()

    def _write_all(self, rest: bytes) -> bytes:
        self._target.write_registers(self._seen, _bytes(rest))
        return b"OK"

    def _read_one(self, rest: bytes) -> bytes:
        return self._target.read_register(self._seen, _thread(rest)).hex().encode()

    def _write_one(self, rest: bytes) -> bytes:
        number, data = _matched(_REGISTER, rest)
        self._target.write_register(self._seen, int(number, 16), _bytes(data))
        return b"OK"

    def _memory(self, rest: bytes) -> bytes:
        address, length = (int(each, 16) for each in _matched(_RANGE, rest))
        return self._target.read_memory(self._seen, address, min(length, _LONGEST))

    def _read(self, rest: bytes) -> bytes:
        if found := self._memory(rest):
            return found.hex().encode()
        raise PacketError("nothing is to be read")

    def _read_binary(self, rest: bytes) -> bytes:
        return b"b" + self._memory(rest)

    def _write(self, rest: bytes) -> bytes:
        address, length, data = _matched(_WRITE, rest)
        return self._store(int(address, 16), int(length, 16), _bytes(data))

    def _write_binary(self, rest: bytes) -> bytes:
        address, length, data = _matched(_WRITE, rest)
        return self._store(int(address, 16), int(length, 16), data)

    def _store(self, address: int, length: int, data: bytes) -> bytes:
        if length != len(data):
            raise PacketError(f"{length} bytes are told and {len(data)} are there")
        self._target.write_memory(self._seen, address, data)
        return b"OK"

    # Where to stop, and going on ----------------------------------------------------------------------------------

    def _insert(self, rest: bytes) -> bytes:
        self._target.places.add(_place(rest))
        return b"OK"

    def _remove(self, rest: bytes) -> bytes:
        self._target.places.remove(_place(rest))
        return b"OK"

    def _resume_each(self, rest: bytes) -> Resume:
        """VCont: of several actions the first that is for a thread is its own."""
        own: dict[int, bytes] = {}
        for action in rest.split(b";"):
            (named,) = _matched(_ACTION, action)
            thread = -1 if named is None else _thread(named)
            if thread > 0:
                self._target.vcpu(thread)
            for each in self._target.threads if thread <= 0 else [thread]:
                own.setdefault(each, action[:1].lower())
        stepping = frozenset(thread for thread, action in own.items() if action == b"s")
        return Resume(stepping, frozenset(own) - stepping)

    def _go(self, rest: bytes) -> Resume:
        """Older packets, for all threads."""
        if rest:
            raise PacketError("going on elsewhere: set the instruction pointer")
        return Resume(frozenset(), frozenset(self._target.threads))

    def _go_with_signal(self, rest: bytes) -> Resume:
        return self._go(rest[2:])

    def _step(self, rest: bytes) -> Resume:
        everybody, who = self._go(rest).going, frozenset({self._resumed or self.thread})
        return Resume(who, everybody - who)

    def _step_with_signal(self, rest: bytes) -> Resume:
        return self._step(rest[2:])

    def _detach(self, _rest: bytes) -> Leave:
        return Leave(killing=False)

    def _kill(self, _rest: bytes) -> Leave:
        return Leave(killing=True, replies=())

    def _kill_process(self, _rest: bytes) -> Leave:
        return Leave(killing=True)

    _SERVED: ClassVar[tuple[tuple[bytes, Callable[[Dialogue, bytes], bytes | Answer]], ...]] = (
        (b"qSupported", _features),
        (b"QStartNoAckMode", _no_acknowledgements),
        (b"qXfer:", _transfer),
        (b"qRcmd,", _command),
        (b"qfThreadInfo", _threads),
        (b"qsThreadInfo", lambda _dialogue, _rest: b"l"),
        (b"qThreadExtraInfo,", _about),
        (b"qAttached", lambda _dialogue, _rest: b"1"),
        (b"qSymbol:", lambda _dialogue, _rest: b"OK"),
        (b"qC", _current),
        (b"vCont?", lambda _dialogue, _rest: b"vCont;c;C;s;S"),
        (b"vCont;", _resume_each),
        (b"vKill", _kill_process),
        (b"?", _why),
        (b"H", _select),
        (b"T", _alive),
        (b"g", _read_all),
        (b"G", _write_all),
        (b"p", _read_one),
        (b"P", _write_one),
        (b"m", _read),
        (b"M", _write),
        (b"x", _read_binary),
        (b"X", _write_binary),
        (b"Z", _insert),
        (b"z", _remove),
        (b"c", _go),
        (b"C", _go_with_signal),
        (b"s", _step),
        (b"S", _step_with_signal),
        (b"D", _detach),
        (b"k", _kill),
    )
    """By the beginning of a packet; the first that fits serves it."""


def _matched(pattern: re.Pattern[bytes], rest: bytes) -> tuple[Any, ...]:
    match = pattern.match(rest)
    if match is None:
        raise PacketError(f"not as the protocol has it: {rest[:32]!r}")
    return match.groups()


def _bytes(digits: bytes) -> bytes:
    _matched(_BYTES, digits)
    return bytes.fromhex(digits.decode("ascii"))


def _thread(text: bytes) -> int:
    return int(_matched(_THREAD, text)[0], 16)


def _place(rest: bytes) -> StopPlace:
    kind, address, length = _matched(_PLACE, rest)
    return StopPlace(int(kind), int(address, 16), int(length, 16))

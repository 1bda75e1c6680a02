"""The payloads of a guest, their states, and every rule about which action is allowed when.

Source: livepatch_upload, livepatch_list, livepatch_action and schedule_work of xen/common/livepatch.c.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, NoReturn, Protocol

import attrs

from pvops_core.livepatch.errors import LivepatchError
from pvops_core.livepatch.payload.model import (
    DEFAULT_TIMEOUT_NS,
    LIST_LIMIT,
    MAX_SIZE,
    NAME_SIZE,
    ActionFlag,
    Command,
    HookPhase,
    Payload,
    Record,
    State,
    UploadFlag,
)
from pvops_core.machine.run.stateful import Beside


@attrs.frozen
class Work:
    """A scheduled action (``struct livepatch_work``).

    Attributes:
        command: APPLY, REVERT or REPLACE.
        record: the payload that it is for.
        timeout_ns: virtual time that the vCPUs have to come.
    """

    command: Command
    record: Record
    timeout_ns: int


class RecordState(NamedTuple):
    """A record in a snapshot: its name there, and what changes of it."""

    name: str
    state: int
    rc: int
    reverted: bool
    saved: tuple[bytes | None, ...]


class WorkState(NamedTuple):
    """A scheduled action in a snapshot; the record by its name there."""

    command: int
    record: str
    timeout_ns: int


class RegistryState(NamedTuple):
    """A registry in a snapshot."""

    version: int
    records: tuple[RecordState, ...]
    applied: tuple[str, ...]
    work: WorkState | None


class Host(Protocol):
    """The guest as the registry sees it."""

    @property
    def build_id(self) -> bytes:
        """The guest's own."""

    def load(self, name: str, data: bytes, registry: Registry, *, force: bool) -> Payload:
        """Read a payload file and place it into the guest; PayloadError or LivepatchError and nothing is left there."""

    def unload(self, payload: Payload) -> None:
        """Take a payload out of the guest."""

    def call(self, record: Record, phase: HookPhase) -> int:
        """Run the hook of a phase outside the quiet zone; what it returned, 0 for none."""

    def schedule(self, work: Work) -> None:
        """Gather the vCPUs and act, later; ends in :meth:`Registry.finish`."""


@attrs.frozen
class PayloadStatus:
    """What ``get`` tells: state, and 0 or a negative errno (``-EAGAIN``: under way)."""

    state: State
    rc: int


@attrs.frozen
class Page:
    """What ``list`` tells.

    Attributes:
        version: changes with every upload and unload; a caller that sees it change begins again.
        remaining: payloads after those told of.
        entries: name, status and metadata of each.
        name_total_size: bytes of the names, NULs included.
        metadata_total_size: bytes of the metadata.
    """

    version: int
    remaining: int
    entries: tuple[tuple[str, PayloadStatus, bytes], ...]
    name_total_size: int
    metadata_total_size: int


def read_name(raw: bytes, pad: bytes = bytes(3)) -> str:
    """A name as the hypercall passes it: its bytes with the NUL, and padding that must be zero.

    Raises:
        LivepatchError: EINVAL, it is empty, too long, not ended by a NUL, or the padding is not zero.
    """
    # get_name() and the hypercall's ABI: a name is a size, a pointer and padding.
    if any(pad):
        raise LivepatchError("the padding of the name is not zero")
    if not 1 <= len(raw) <= NAME_SIZE:
        raise LivepatchError(f"a name has 1 to {NAME_SIZE} bytes with its NUL, not {len(raw)}")
    # The size counts the NUL, which must be the last byte; one before it ends the name.
    if raw[-1]:
        raise LivepatchError("the name does not end in a NUL")
    return raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def write_name(name: str) -> bytes:
    """A name as the hypercall passes it."""
    return name.encode("utf-8", "surrogateescape") + b"\0"


class Registry:
    """All payloads of one guest, in the order of their upload (payload_list, applied_list).

    Args:
        host: the guest.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self.version = 0
        self.records: list[Record] = []
        self.applied: list[Record] = []
        self.work: Work | None = None
        self._beside = Beside[Record]("the live patch")

    # Looking -----------------------------------------------------------------------------------------------------

    def find(self, name: str) -> Record | None:
        """The payload of a name."""
        return next((record for record in self.records if record.name == name), None)

    def record(self, name: str) -> Record:
        """The payload of a name; ENOENT if there is none."""
        # The name's own rules first: EINVAL for a bad one, though no payload can have it.
        name = read_name(write_name(name))
        found = self.find(name)
        if found is None:
            raise LivepatchError("there is no such payload", errno=errno.ENOENT, payload=name)
        return found

    @property
    def symbols(self) -> Mapping[str, int]:
        """What the payloads have added to the guest's symbols; the first to name one has it."""
        found: dict[str, int] = {}
        for record in self.records:
            # build_symbol_table() refuses duplicates, so the first is the only one unless one was unloaded between.
            for name, address in record.payload.symbols.items():
                found.setdefault(name, address)
        return found

    def get(self, name: str) -> PayloadStatus:
        """livepatch_get(): state and result of a payload.

        Raises:
            LivepatchError: EINVAL for a bad name, ENOENT for an unknown one.
        """
        record = self.record(name)
        return PayloadStatus(record.state, record.rc)

    def list(self, idx: int = 0, nr: int = LIST_LIMIT, *, pad: int = 0) -> Page:
        """A page of all payloads, from number ``idx`` on, ``nr`` at most; with 0 only how many and how large.

        Raises:
            LivepatchError: E2BIG for more than 1024 at once, EINVAL for padding or a number past the end.
        """
        if nr > LIST_LIMIT:
            raise LivepatchError(f"a page has at most {LIST_LIMIT} payloads, not {nr}", errno=errno.E2BIG)
        if nr < 0 or idx < 0 or pad:
            raise LivepatchError("a page has no negative numbers and no padding but zero")
        # livepatch_list(): idx may be 0 when there is nothing, which is how a tool begins.
        if self.records and idx >= len(self.records):
            raise LivepatchError(f"there are {len(self.records)} payloads, none with number {idx}")
        told = self.records[idx : idx + nr]
        # nr of 0 asks for the sizes of everything, so that a tool can make its buffers.
        sized = told if nr else self.records
        return Page(
            version=self.version,
            remaining=len(self.records) - (idx + len(told) if nr else 0),
            entries=tuple((r.name, PayloadStatus(r.state, r.rc), r.payload.metadata) for r in told),
            name_total_size=sum(len(write_name(record.name)) for record in sized),
            metadata_total_size=sum(len(record.payload.metadata) for record in sized),
        )

    def pages(self, size: int = LIST_LIMIT) -> Iterator[Page]:
        """All pages, as a tool reads them."""
        idx = 0
        while True:
            page = self.list(idx, size)
            yield page
            idx += len(page.entries)
            if not page.remaining or not page.entries:
                # A list that shrank between pages ends, too.
                return

    # Changing ----------------------------------------------------------------------------------------------------

    def upload(self, name: str, data: bytes, *, flags: int = 0) -> None:
        """livepatch_upload(): read, check and place a payload; it is CHECKED afterwards.

        Args:
            name: 1 to 127 bytes.
            data: the ELF file.
            flags: of the whole operation, :class:`UploadFlag`.

        Raises:
            LivepatchError: EINVAL for name, size or flags; EEXIST for a name or build-id that is there.
            PayloadError: the file is refused; its ``errno`` is what Xen gives.
        """
        force = bool(flags & UploadFlag.FORCE)
        # Xen compares FORCE alone, so other flags beside it pass.
        if flags & ~int(UploadFlag.FORCE) and not force:
            raise LivepatchError(f"unknown flags {flags:#x}", payload=name)
        name = read_name(write_name(name))
        if not data:
            raise LivepatchError("the payload has no bytes", payload=name)
        if len(data) > MAX_SIZE:
            raise LivepatchError(f"{len(data)} bytes: a payload has at most {MAX_SIZE}", payload=name)
        # verify_payload() before find_payload(): the order decides which errno a user sees.
        if self.find(name) is not None:
            _refuse(errno.EEXIST, name, "a payload of this name is there")
        payload = self._host.load(name, data, self, force=force)
        # Only now: a payload that is refused is in no list.
        self.records.append(Record(payload))
        self.version += 1

    def action(self, name: str, command: int, *, timeout_ns: int = 0, flags: int = 0, pad: int = 0) -> None:
        """livepatch_action(): ask for an action. Returns when it is scheduled; ``get`` tells how it went.

        A payload in another state than the action begins from is left as it is, without an error.

        Args:
            name: the payload.
            command: a :class:`Command`.
            timeout_ns: virtual time the vCPUs have to come; 0 for 30 ms.
            flags: :class:`ActionFlag`.
            pad: must be 0.

        Raises:
            LivepatchError: with the errno of the facts: ENOENT, EBUSY, EINVAL, EOPNOTSUPP, or what a hook vetoed with.
        """
        if pad or timeout_ns < 0 or flags & ~int(ActionFlag.NODEPS):
            raise LivepatchError("an action has no padding, no negative time-out and no unknown flags", payload=name)
        record = self.record(name)
        # is_work_scheduled(): of another payload, an action is refused later, by schedule_work().
        if self.work is not None and self.work.record is record:
            _refuse(errno.EBUSY, name, "an action on this payload is under way")
        timeout = timeout_ns or DEFAULT_TIMEOUT_NS
        match command:
            case Command.UNLOAD:
                self._unload(record)
            case Command.REVERT if record.state is State.APPLIED:
                self._revert(record, timeout)
            case Command.APPLY if record.state is State.CHECKED:
                self._apply(record, timeout, nodeps=bool(flags & ActionFlag.NODEPS))
            case Command.REPLACE if record.state is State.CHECKED:
                self._replace(record, timeout)
            case Command.REVERT | Command.APPLY | Command.REPLACE:
                # livepatch_action() has no else: an action in the wrong state does nothing and succeeds.
                return
            case _:
                _refuse(errno.EOPNOTSUPP, name, f"there is no action {command}")

    def _unload(self, record: Record) -> None:
        if record.state is not State.CHECKED:
            _refuse(errno.EINVAL, record.name, "an applied payload cannot be unloaded; revert it first")
        self._host.unload(record.payload)
        self.records.remove(record)
        self.version += 1

    def _revert(self, record: Record, timeout: int) -> None:
        # applied_list is a stack: text that a later payload saved may be an earlier one's.
        top = self.applied[-1]
        if top is not record:
            _refuse(errno.EBUSY, record.name, f"only the last one applied can be reverted, which is {top.name}")
        self._schedule(Command.REVERT, record, timeout, HookPhase.PREREVERT)

    def _apply(self, record: Record, timeout: int, *, nodeps: bool) -> None:
        # .data may not be pristine (safe_to_reapply).
        if record.reverted and not record.payload.reappliable:
            # Its data is as the last use left it. The operation itself succeeds; the result tells.
            record.rc = -errno.EINVAL
            return
        if not nodeps:
            # A payload depends on what is in force: the last one applied, or the guest itself.
            self._check_dependency(record, self.applied[-1].payload.build_id if self.applied else self._host.build_id)
        self._schedule(Command.APPLY, record, timeout, HookPhase.PREAPPLY)

    def _replace(self, record: Record, timeout: int) -> None:
        # All others go, so what it will stand on is the guest.
        self._check_dependency(record, self._host.build_id)
        for other in (record, *self.applied):
            # Pre and post hooks come in pairs, and undoing those of all payloads in one go may fail halfway.
            if other.payload.hooks.outside:
                _refuse(
                    errno.EOPNOTSUPP, record.name, f"{other.name} has pre or post hooks, which REPLACE does not run"
                )
        self._schedule(Command.REPLACE, record, timeout, None)

    def _check_dependency(self, record: Record, wanted: bytes) -> None:
        if record.payload.depends != wanted:
            _refuse(
                errno.EINVAL,
                record.name,
                f"it depends on build-id {record.payload.depends.hex()}, but {wanted.hex()} is the last one in force",
            )

    def _schedule(self, command: Command, record: Record, timeout: int, veto: HookPhase | None) -> None:
        # Xen asks the veto hook first and may then find that other work is pending, with nothing to undo the hook.
        if self.work is not None:
            _refuse(errno.EBUSY, record.name, f"an action on {self.work.record.name} is under way")
        if veto is not None:
            result = self._host.call(record, veto)
            if result:
                record.rc = -abs(result)
                _refuse(abs(result), record.name, f"its {veto.value} hook returned {result}")
        # Told as under way before anything can look; Xen sets it before schedule_work() as well.
        before, record.rc = record.rc, -errno.EAGAIN
        self.work = Work(command, record, timeout)
        try:
            self._host.schedule(self.work)
        except BaseException:
            self.work, record.rc = None, before
            raise

    def finish(self, rc: int, reverted: Sequence[Record] = ()) -> Work:
        """The scheduled action is over: note its result and the new states; gives what it was.

        Args:
            rc: 0 or a negative errno; then states stay as they were,
            reverted: but for these payloads, which a REPLACE had reverted by then.
        """
        work, self.work = self.work, None
        assert work is not None, "nothing was scheduled"
        work.record.rc = rc
        # First: a REPLACE has reverted others even if it failed afterwards.
        self._took_away(reverted)
        if rc == 0:
            self._move(work)
        return work

    def _took_away(self, records: Sequence[Record]) -> None:
        for record in records:
            self.applied.remove(record)
            record.state, record.reverted, record.rc = State.CHECKED, True, 0

    def _move(self, work: Work) -> None:
        if work.command is not Command.APPLY:
            # From the top of the stack down, which is the order that they were reverted in.
            self._took_away([work.record] if work.command is Command.REVERT else self.applied[::-1])
        if work.command is not Command.REVERT:
            self.applied.append(work.record)
            work.record.state = State.APPLIED

    # Snapshots ---------------------------------------------------------------------------------------------------

    def save(self) -> RegistryState:
        """State for a snapshot; the records themselves stay here, by name."""
        # Payloads are large and do not change: a snapshot has their names, and they stay beside it.
        records = tuple(
            RecordState(self._name(each), int(each.state), each.rc, each.reverted, tuple(each.saved))
            for each in self.records
        )
        now, work = self.work, None
        if now is not None:
            work = WorkState(int(now.command), self._name(now.record), now.timeout_ns)
        return RegistryState(self.version, records, tuple(map(self._name, self.applied)), work)

    def _name(self, record: Record) -> str:
        return self._beside.name(record, record.name)

    def load(self, state: RegistryState) -> None:
        """Go back to a saved state."""
        self.version, records, applied, work = state
        thing = self._beside.thing
        self.records = [thing(each.name) for each in records]
        self.applied = [thing(name) for name in applied]
        self.work = None if work is None else Work(Command(work.command), thing(work.record), work.timeout_ns)
        for record, saved in zip(self.records, records, strict=True):
            record.state, record.rc, record.reverted = State(saved.state), saved.rc, saved.reverted
            record.saved = list(saved.saved)


def _refuse(number: int, name: str, why: str) -> NoReturn:
    raise LivepatchError(why, errno=number, payload=name)

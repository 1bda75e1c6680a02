"""The only writer of guest text: transactions that leave it wholly old or wholly new.

The order is the one that text coherence on the emulated CPUs demands (and that Linux keeps with stop_machine
and sync_core): every vCPU stopped, and nobody about to go on or to return inside of what changes; old bytes checked,
new bytes written, translations dropped on every engine, result verified, and only then any vCPU resumed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakValueDictionary

import attrs
import numpy as np

from pvops_core.errors import PatchError, PvopsError, shown
from pvops_core.guest.stacks.leaving import bring_out
from pvops_core.guest.stacks.returns import StackScan
from pvops_core.guest.stacks.spans import Spans, changing
from pvops_core.machine.run.eventkinds import event_kind
from pvops_core.patching.holders import Holders
from pvops_core.x86 import PAGE_SHIFT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pvops_core.guest.stacks.returns import Returns
    from pvops_core.machine import Machine, PhysicalMemory
    from pvops_core.patching.holders import Holder

_POKE: Final = event_kind(
    "poke",
    "Guest text was written: one transaction.",
    by="str: who asked",
    places="int: ranges of addresses",
    bytes="int: how many in all",
)

PAGE_MASK = 0xFFF


class PokeStep(enum.Enum):
    """The steps of a transaction, in order; an observer is told of each before it is taken."""

    QUIESCE = "quiesce"
    TRANSLATE = "translate"
    CHECK = "check"
    WRITE = "write"
    INVALIDATE = "invalidate"
    VERIFY = "verify"
    RESUME = "resume"


def _not_short(_instance: Poke, _attribute: attrs.Attribute[bytes], value: bytes) -> None:
    if not value:
        raise PatchError("a poke of no bytes")


@attrs.frozen
class Poke:
    """One write to guest text.

    Attributes:
        address: guest-virtual address of the first byte.
        expected: the bytes that must be there now.
        new: the bytes to be there afterwards, as many.
        retires: the code there is gone for good: not even its first byte may be executed any more.
        fresh: nothing has been code there yet, so nobody can go on inside, whatever looks like it.
    """

    address: int
    expected: bytes = attrs.field(validator=_not_short)
    new: bytes = attrs.field()
    retires: bool = False
    fresh: bool = False

    @new.validator
    def _same_length(self, _attribute: attrs.Attribute[bytes], value: bytes) -> None:
        if len(value) != len(self.expected):
            raise PatchError(
                f"a poke of {len(value)} bytes over {len(self.expected)}", address=self.address, code=value
            )


@attrs.frozen(eq=False)
class PokeBatch:
    """Many pokes of one length, as arrays: row ``i`` is the poke at ``addresses[i]``.

    Attributes:
        addresses: guest-virtual addresses, shape ``(n,)``.
        expected: bytes that must be there now, shape ``(n, length)``.
        new: bytes to be there afterwards, shape ``(n, length)``.
    """

    addresses: NDArray[np.uint64]
    expected: NDArray[np.uint8]
    new: NDArray[np.uint8]

    @property
    def length(self) -> int:
        """Bytes of each poke."""
        return int(self.new.shape[1])

    def ranges(self) -> NDArray[np.uint64]:
        """``[start, end)`` of each poke, shape ``(n, 2)``."""
        return np.stack((self.addresses, self.addresses + np.uint64(self.length)), axis=1)

    def changing(self) -> NDArray[np.uint64]:
        """The intervals that nobody may be inside of, as :func:`~pvops_core.guest.stacks.spans.changing`."""
        return changing(self.addresses, self.expected, self.new)


class _Writes(Protocol):
    """Some writes of a transaction, on their way."""

    def ranges(self) -> list[list[int]] | NDArray[np.uint64]:
        """``[start, end)`` of each."""

    def changing(self) -> list[list[int]] | NDArray[np.uint64]:
        """The intervals that nobody may be inside of."""

    def locate(self, frame: Callable[[int], int]) -> None:
        """Find their places in machine memory, given what tells a page's."""

    def check(self, memory: PhysicalMemory) -> None:
        """PatchError unless what is expected is there."""

    def write(self, memory: PhysicalMemory) -> None:
        """Put the new bytes there."""

    def undo(self, memory: PhysicalMemory) -> None:
        """Put the old ones back."""

    def verify(self, memory: PhysicalMemory) -> None:
        """PatchError unless the new bytes are there."""

    @property
    def size(self) -> int:
        """How many bytes they are in all."""

    @property
    def retired(self) -> Sequence[int]:
        """Starts of code that goes for good."""


class _Single:
    """One poke: cheaper as bytes than as arrays."""

    def __init__(self, poke: Poke) -> None:
        self._poke = poke
        self._places: list[tuple[int, slice]] = []
        self.size = len(poke.new)
        self.retired = (poke.address,) if poke.retires else ()

    def ranges(self) -> list[list[int]]:
        return [[self._poke.address, self._poke.address + self.size]]

    def changing(self) -> list[list[int]]:
        poke = self._poke
        if poke.fresh:
            # Nobody can be inside of what nobody has executed yet.
            return []
        # Code that goes for good: also who stands at an unchanged byte of it would go on into nothing.
        if poke.retires:
            return self.ranges()
        places = [at for at in range(self.size) if poke.expected[at] != poke.new[at]]
        return [[poke.address + places[0], poke.address + places[-1] + 1]] if places else []

    def locate(self, frame: Callable[[int], int]) -> None:
        at, done, self._places = self._poke.address, 0, []
        # Page by page: neighbours in virtual memory lie anywhere in machine memory.
        while done < self.size:
            stop = min(self.size, done + (PAGE_MASK + 1) - (at & PAGE_MASK))
            self._places.append((frame(at >> PAGE_SHIFT) + (at & PAGE_MASK), slice(done, stop)))
            at, done = at + stop - done, stop

    def check(self, memory: PhysicalMemory) -> None:
        found = self._read(memory)
        if found != self._poke.expected:
            raise self._error(f"found {shown(found)} where {shown(self._poke.expected)} was expected")

    def write(self, memory: PhysicalMemory) -> None:
        self._store(memory, self._poke.new)

    def undo(self, memory: PhysicalMemory) -> None:
        self._store(memory, self._poke.expected)

    def verify(self, memory: PhysicalMemory) -> None:
        found = self._read(memory)
        if found != self._poke.new:
            raise self._error(f"wrote the bytes but found {shown(found)}")

    def _read(self, memory: PhysicalMemory) -> bytes:
        return b"".join([memory.read(place, part.stop - part.start) for place, part in self._places])

    def _store(self, memory: PhysicalMemory, data: bytes) -> None:
        for place, part in self._places:
            memory.write(place, data[part])

    def _error(self, message: str) -> PatchError:
        return PatchError(message, address=self._poke.address, code=self._poke.new)


class _Many:
    """A batch: thousands are handled at once."""

    def __init__(self, batch: PokeBatch) -> None:
        self._batch = batch
        self._places: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.size = int(batch.new.size)
        self.retired = ()

    def ranges(self) -> NDArray[np.uint64]:
        return self._batch.ranges()

    def changing(self) -> NDArray[np.uint64]:
        return self._batch.changing()

    def locate(self, frame: Callable[[int], int]) -> None:
        self._places = _places(self._batch.addresses, self._batch.length, frame)

    def check(self, memory: PhysicalMemory) -> None:
        found = memory.array[self._places]
        wrong = np.flatnonzero((found != self._batch.expected).any(axis=1))
        if len(wrong):
            row = int(wrong[0])
            expected = self._batch.expected[row].tobytes().hex(" ")
            raise self._error(
                row,
                f"found {found[row].tobytes().hex(' ')} where {expected} was expected "
                f"({len(wrong)} of {len(found)} places differ)",
            )

    def write(self, memory: PhysicalMemory) -> None:
        memory.array[self._places] = self._batch.new

    def undo(self, memory: PhysicalMemory) -> None:
        memory.array[self._places] = self._batch.expected

    def verify(self, memory: PhysicalMemory) -> None:
        found = memory.array[self._places]
        wrong = np.flatnonzero((found != self._batch.new).any(axis=1))
        if len(wrong):
            row = int(wrong[0])
            raise self._error(row, f"wrote the bytes but found {found[row].tobytes().hex(' ')}")

    def _error(self, row: int, message: str) -> PatchError:
        batch = self._batch
        return PatchError(message, address=int(batch.addresses[row]), code=batch.new[row].tobytes())


def _places(addresses: NDArray[np.uint64], length: int, frame: Callable[[int], int]) -> NDArray[np.int64]:
    """Index into machine memory of every byte, shape ``(n, length)``; a poke may cross pages."""
    offsets = np.arange(length, dtype=np.uint64)
    byte_addresses = np.add(addresses[:, None], offsets, dtype=np.uint64)
    pages: NDArray[np.uint64] = byte_addresses >> np.uint64(PAGE_SHIFT)
    # First and last page of each poke: it is shorter than a page.
    known, inverse = np.unique(pages[:, (0, -1)], return_inverse=True)
    frames = np.array([frame(int(page)) for page in known], dtype=np.int64)
    first, last = frames[inverse.reshape(-1, 2)].T
    base = np.where(pages == pages[:, :1], first[:, None], last[:, None])
    places: NDArray[np.int64] = base + (byte_addresses & np.uint64(PAGE_MASK)).astype(np.int64)
    return places


Observer = Callable[[PokeStep], None]


def _unobserved(_step: PokeStep) -> None:
    """The observer of a transaction that nobody watches."""


_POKERS: WeakValueDictionary[int, Poker] = WeakValueDictionary()
"""Each machine's, by its id(): two that write the same text would each know half of who holds it.

A poker refers to its machine. So a table that kept pokers by machines would keep both, and all their memory, for ever.
"""


class Poker:
    """Writes guest text, and the pointers that must change together with it, in transactions. A machine has one.

    Args:
        machine: the machine whose vCPUs execute the text.
        translate: machine-physical address of a page of guest text, given its guest-virtual address (both of
            the page's first byte); raises a :class:`PvopsError` for an address that is not guest text.
        observer: told of every step of every transaction before it is taken. If it raises, the transaction
            is undone and the exception passed on.
        returns: knows where everybody goes on; unless given, the vCPUs' stacks are looked through.

    Raises:
        PatchError: the machine has one already.
    """

    def __init__(
        self,
        machine: Machine,
        translate: Callable[[int], int],
        observer: Observer = _unobserved,
        returns: Returns | None = None,
    ) -> None:
        # Two pokers of one machine would each know half of who holds what.
        if id(machine) in _POKERS:
            raise PatchError("a machine has one poker, and this one has its own already")
        _POKERS[id(machine)] = self
        self._machine = machine
        self._translate = translate
        self.returns: Returns = returns or StackScan(machine)
        self.observer = observer
        self._holders = Holders()

    @staticmethod
    def of(machine: Machine) -> Poker:
        """The poker of a machine; PatchError if it has none yet."""
        try:
            return _POKERS[id(machine)]
        except KeyError:
            raise PatchError("the machine has no poker yet") from None

    def hold(self, holder: Holder) -> None:
        """From now on nobody else may write what this holder says that it holds."""
        self._holders.add(holder)

    def refuse_held(self, ranges: NDArray[np.uint64], by: str) -> None:
        """HeldError if somebody holds a byte of these ranges ``[start, end)``."""
        self._holders.refuse(ranges, by, None)

    def read(self, addresses: NDArray[np.uint64], length: int) -> NDArray[np.uint8]:
        """The bytes at many places of guest text, shape ``(n, length)``; PatchError for one that is not text."""
        found: NDArray[np.uint8] = self._machine.memory.array[_places(addresses, length, self._frame)]
        return found

    def transaction(
        self,
        pokes: Iterable[Poke] = (),
        *,
        arrays: Sequence[PokeBatch] = (),
        by: str,
        holder: Holder | None = None,
        asked: Spans | None = None,
    ) -> int:
        """Make all these writes, or none of them.

        Args:
            pokes: single writes.
            arrays: writes in bulk, made in the same transaction.
            by: who asks, for the event log.
            holder: who writes over what it holds itself, if anybody does.
            asked: where nobody goes on, as has been asked since a vCPU last ran: if all that changes lies there, it is
                not asked once more.

        Returns:
            How many places were written.

        Raises:
            PatchError: a vCPU is running, two writes overlap, an address is not guest text, the old bytes
                are not the expected ones, or the new ones did not arrive; the text is as it was before.
            HeldError: somebody else holds some of these bytes.
            OccupiedError: somebody goes on inside of what changes, or returns there, and could not be brought out
                of it in time; the text is as it was before.
        """
        todo: list[_Writes] = [_Single(poke) for poke in pokes]
        todo += [_Many(batch) for batch in arrays if len(batch.addresses)]
        if not todo:
            return 0
        # A vCPU that runs may be inside of what changes, and nobody could bring it out.
        if self._machine.running:
            raise PatchError("guest text was to be written while a vCPU runs; defer it to the call's end")
        ranges = np.concatenate([np.asarray(writes.ranges(), dtype=np.uint64) for writes in todo])
        _refuse_overlaps(ranges)
        # Before anything is stopped: what is refused leaves no trace, not even in time.
        self._holders.refuse(ranges, by, holder)
        self.observer(PokeStep.QUIESCE)
        spans = _spans(todo)
        # Who asked already has brought everybody out, and nobody has run since.
        if asked is None or not asked.covers(spans):
            bring_out(self._machine, self.returns, spans)
        self.observer(PokeStep.TRANSLATE)
        # After vCPUs stand still, since the guest may have changed its page tables on the way out.
        for writes in todo:
            writes.locate(self._frame)
        self.observer(PokeStep.CHECK)
        for writes in todo:
            writes.check(self._machine.memory)
        self._write(todo, ranges)
        # Written whole: an event for each place would fill the log at boot.
        self._machine.log.record(_POKE, by=by, places=len(ranges), bytes=sum(writes.size for writes in todo))
        return len(ranges)

    def _write(self, todo: Sequence[_Writes], ranges: NDArray[np.uint64]) -> None:
        """From the first byte written on, any failure puts the old bytes back, everywhere."""
        memory = self._machine.memory
        try:
            for writes in todo:
                self.observer(PokeStep.WRITE)
                writes.write(memory)
            self.observer(PokeStep.INVALIDATE)
            self._machine.invalidate(ranges)
            self.observer(PokeStep.VERIFY)
            for writes in todo:
                writes.verify(memory)
            self.observer(PokeStep.RESUME)
        except BaseException:
            for writes in todo:
                writes.undo(memory)
            self._machine.invalidate(ranges)
            raise

    def _frame(self, page: int) -> int:
        address = page << PAGE_SHIFT
        try:
            return self._translate(address)
        except PvopsError as error:
            raise PatchError(f"not guest text ({error})", address=address) from error


def _spans(todo: Sequence[_Writes]) -> Spans:
    parts = [np.asarray(writes.changing(), dtype=np.uint64).reshape(-1, 2) for writes in todo]
    return Spans(np.concatenate(parts), [start for writes in todo for start in writes.retired])


def _refuse_overlaps(ranges: NDArray[np.uint64]) -> None:
    if len(ranges) == 1:
        return
    order = ranges[np.argsort(ranges[:, 0], kind="stable")]
    clash = np.flatnonzero(order[1:, 0] < order[:-1, 1])
    if len(clash):
        raise PatchError("two pokes of one transaction overlap", address=int(order[int(clash[0]) + 1, 0]))

"""Random hypercalls against a domain that runs: none may raise in the host, and the frame table must stay right.

Arguments are drawn from what a guest could plausibly pass: its own frames and entries with flipped bits, pointers at
and across the ends of pages, addresses of Xen's, small numbers, and structures of all these in the guest's memory.
Everything comes from one seed, so a failing call can be made again.
"""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING, Final, NoReturn

import attrs

from pvops_core.errors import MachineError
from pvops_core.machine.cpu.faults import GuestFault
from pvops_xen.hypervisor.abi import PAGE_SHIFT, PAGE_SIZE, Hypercall, MemoryOp, MmuExt
from pvops_xen.hypervisor.hypercalls import dispatch
from pvops_xen.hypervisor.memory import audit
from pvops_xen.hypervisor.memory import entries as pte
from pvops_xen.hypervisor.memory.frames import FrameType
from pvops_xen.hypervisor.memory.walk import levels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

_FLAGS: Final = (0x00, 0x01, 0x03, 0x05, 0x07, 0x61, 0x63, 0x67, 0xE7, 0x163, 0x1E3, 1 << 63 | 0x63, 1 << 62 | 0x63)
_WORD: Final = (1 << 64) - 1
_SHARE_OF_MEMORY: Final = 48  # mapped pages that the pools are drawn from


class MutationError(MachineError):
    """A hypercall raised in the host, or left the frame table wrong: with the seed and the call that did it."""


@attrs.frozen
class MutatedCall:
    """A hypercall and what was in the guest's memory for it.

    Attributes:
        number: hypercall number.
        arguments: of the width of the guest.
        stores: guest-virtual address and bytes of what was written before.
    """

    number: int
    arguments: tuple[int, ...]
    stores: tuple[tuple[int, bytes], ...] = ()

    def __str__(self) -> str:
        """The call, ready to be made again."""
        name = Hypercall(self.number).name.lower() if self.number in set(Hypercall) else str(self.number)
        stores = "".join(f"; {address:#x}: {data.hex()}" for address, data in self.stores)
        return f"{name}({', '.join(map(hex, self.arguments))}){stores}"


@attrs.frozen
class _Page:
    """A mapped page of the guest's."""

    va: int
    mfn: int
    entry_address: int
    entry: int

    @property
    def writable(self) -> bool:
        return bool(self.entry & pte.RW)


def _mapped(hv: Hypervisor, cpu: Vcpu) -> list[_Page]:
    """Every page that the guest has mapped in its own part of the address space, in order."""
    found: list[_Page] = []
    bits = hv.abi.bits

    def descend(table: int, level: int, base: int) -> None:
        for slot, entry in enumerate(hv.validator.table(table)):
            if not entry & pte.P or not hv.validator.is_guest_slot(table, level, slot):
                continue
            va = base | slot << (3 + 9 * level)
            if level == levels(bits) and bits == 64 and va >> 47:
                va |= 0xFFFF << 48
            if level > 1 and pte.frame_of(entry) != table:
                descend(pte.frame_of(entry), level - 1, va)
            elif level == 1:
                found.append(_Page(va, pte.frame_of(entry), (table << PAGE_SHIFT) + slot * 8, entry))

    descend(hv.space.root(cpu.index), levels(bits), 0)
    return found


class Mutator:
    """Draws hypercalls for one vCPU of a domain that stands still.

    Args:
        hv: the hypervisor.
        cpu: the vCPU that calls.
        rng: where everything is drawn from.
    """

    def __init__(self, hv: Hypervisor, cpu: Vcpu, rng: random.Random) -> None:
        self.hv, self.cpu, self.rng = hv, cpu, rng
        self.word = hv.abi.word
        pages = _mapped(hv, cpu)
        self._pages = rng.sample(pages, min(_SHARE_OF_MEMORY, len(pages)))
        writable = [page for page in pages if page.writable and hv.frames.refs[page.mfn] < 4]
        self._scratch = rng.sample(writable, min(8, len(writable)))
        self._tables = [mfn for mfn in range(len(hv.frames)) if 1 <= hv.frames.in_use_as(mfn) <= FrameType.L4]
        self._stores: list[tuple[int, bytes]] = []

    def draw(self) -> MutatedCall:
        """The next call; its structures are in the guest's memory."""
        self._stores = []
        kind = self.rng.randrange(100)
        if kind < 55:
            number, arguments = self._shaped()
        elif kind < 65:
            number, arguments = Hypercall.MULTICALL, self._multicall()
        else:
            number = self.rng.choice([*Hypercall, 11, 16, 48, 63, 1 << 31])
            arguments = tuple(self.number() for _ in range(self.rng.randrange(7)))
        if number == Hypercall.IRET:
            self._iret_frame()
        mask = self.hv.abi.mask
        return MutatedCall(int(number), tuple(value & mask for value in arguments), tuple(self._stores))

    def _iret_frame(self) -> None:
        """Put a frame of anything on the kernel's stack, where iret finds it."""
        selectors = [0xE033, 0xE030, 0xE02B, 0xE019, 0xE008, 0xE023, 0x33, 7, 0, self.number() & 0xFFFF]
        values = [self.rng.choice([self.number(), self.pointer(), self.rng.choice(selectors)]) for _ in range(9)]
        self._stores.append((self.cpu.rsp, self.words(*values)[: PAGE_SIZE - self.cpu.rsp % PAGE_SIZE]))

    # --- values ----------------------------------------------------------------------------------------------------

    def frame(self) -> int:
        """A frame number, most often one of the guest's."""
        rng, frames = self.rng, self.hv.frames
        return rng.choice(
            [
                rng.choice(self._pages).mfn,
                rng.choice(self._scratch).mfn,
                rng.choice(self._scratch).mfn,
                rng.choice(self._scratch).mfn,
                rng.choice(self._tables),
                rng.choice(self._tables),
                self.hv.space.root(self.cpu.index),
                self.hv.domain.shared_info >> PAGE_SHIFT,
                self.hv.m2p >> PAGE_SHIFT,
                rng.randrange(len(frames)),
                len(frames) + rng.randrange(4),
                rng.choice([0, (1 << 40) - 1, 1 << 52, (1 << 64) - 1]),
            ]
        )

    def pointer(self) -> int:
        """A virtual address: mapped, at the end of a page, Xen's, or none at all."""
        rng = self.rng
        page = rng.choice(self._pages)
        return rng.choice(
            [
                rng.choice(self._scratch).va + rng.randrange(PAGE_SIZE),
                rng.choice(self._scratch).va,
                page.va + PAGE_SIZE - rng.randrange(1, 40),
                page.va + rng.randrange(PAGE_SIZE),
                self.hv.abi.m2p_start + rng.choice([-8, 0, 8, 1 << 21]),
                self.hv.descriptor_base,
                rng.choice([0, 8, 0x1000, (1 << 47) - 8, 1 << 47, (1 << 64) - 8, (1 << 32) - 4]),
            ]
        )

    def entry(self) -> int:
        """A page-table entry: one of the guest's with a bit or two flipped, or any frame with any flags."""
        rng = self.rng
        if rng.randrange(2):
            value = self.hv.memory.u64((rng.choice(self._tables) << PAGE_SHIFT) + rng.randrange(512) * 8)
            for _ in range(rng.randrange(3)):
                value ^= 1 << rng.randrange(64)
            return value
        return (self.frame() << PAGE_SHIFT | rng.choice(_FLAGS)) & (1 << 64) - 1

    def slot(self) -> int:
        """Machine address of an entry of a page table, mostly aligned."""
        rng = self.rng
        if rng.randrange(2):
            return rng.choice(self._pages).entry_address
        address = (self.frame() << PAGE_SHIFT) + rng.choice([0, 3, 255, 256, 260, 271, 272, 428, 511, 1]) * 8
        return address + (rng.randrange(8) if not rng.randrange(8) else 0)

    def number(self) -> int:
        """Anything."""
        rng = self.rng
        draw: list[Callable[[], int]] = [
            self.frame,
            self.pointer,
            self.entry,
            self.slot,
            lambda: rng.randrange(64),
            lambda: rng.choice([0x7FF0, 0x7FF1, 0x7FF2, 0x7FFF, 1 << 31, (1 << 31) | 5, (1 << 64) - 1, 1 << 63]),
            lambda: rng.getrandbits(64),
        ]
        return rng.choice(draw)()

    # --- structures ------------------------------------------------------------------------------------------------

    def put(self, data: bytes) -> int:
        """Write bytes where the guest could, and give the address; now and then across the end of a page."""
        rng = self.rng
        page = rng.choice(self._scratch)
        offset = rng.randrange(0, PAGE_SIZE - min(len(data), PAGE_SIZE // 2)) & ~7
        if not rng.randrange(8):
            offset = PAGE_SIZE - max(4, len(data) // 2) & ~3
        inside = data[: PAGE_SIZE - offset]
        self._stores.append((page.va + offset, inside))
        return page.va + offset

    def words(self, *values: int) -> bytes:
        """Unsigned longs."""
        mask = self.hv.abi.mask
        return struct.pack(f"<{len(values)}{'Q' if self.word == 8 else 'I'}", *(value & mask for value in values))

    def _shaped(self) -> tuple[int, tuple[int, ...]]:
        return self.rng.choice(_SHAPES)(self)

    def _multicall(self) -> tuple[int, ...]:
        calls = b""
        count = self.rng.randrange(1, 6)
        for _ in range(count):
            number, arguments = self._shaped()
            calls += self.words(number, 0, *(*arguments, *[0] * 6)[:6])
        return self.put(calls), count + (0 if self.rng.randrange(8) else self.rng.choice([1, 1 << 20, (1 << 32) - 1]))

    def mmu_update(self) -> tuple[int, tuple[int, ...]]:
        """Updates of entries."""
        count = self.rng.randrange(1, 5)
        updates = b"".join(
            struct.pack("<QQ", self.slot() & (1 << 64) - 8 | self.rng.choice([0, 0, 0, 1, 2, 3, 4]), self.entry())
            for _ in range(count)
        )
        owner = self.rng.choice([0x7FF0] * 20 + [0x7FF1, 0x7FF2, 0, 1, 7, 2 << 16 | 0x7FF0])
        more = 0 if self.rng.randrange(8) else self.rng.choice([1 << 31, 1 << 20, 9])
        return Hypercall.MMU_UPDATE, (self.put(updates), count + more, self._done(), owner)

    def mmuext_op(self) -> tuple[int, tuple[int, ...]]:
        """Extended operations."""
        count = self.rng.randrange(1, 4)
        operations = b""
        for _ in range(count):
            command = self.rng.choice([*MmuExt, *MmuExt, *_PINS, *_PINS, 14, 21, 1 << 31])
            first = self.pointer() if command in _BY_ADDRESS else self.frame()
            second = self.rng.choice([self.frame(), self.pointer(), self.rng.randrange(9000)])
            operations += self.words(command, first, second)
        owner = self.rng.choice([0x7FF0] * 20 + [0x7FF1, 0x7FF2, 0, 7])
        return Hypercall.MMUEXT_OP, (self.put(operations), count, self._done(), owner)

    def _done(self) -> int:
        return self.rng.choice([0, 0, self.pointer()])

    def update_va_mapping(self) -> tuple[int, tuple[int, ...]]:
        """One entry by its address."""
        value = self.entry()
        flags = self.rng.choice([0, 1, 2, 3, 5, 6, 7, self.pointer()])
        va = self.rng.choice([self.rng.choice(self._pages).va, self.pointer()])
        if self.word == 8:
            return Hypercall.UPDATE_VA_MAPPING, (va, value, flags)
        return Hypercall.UPDATE_VA_MAPPING, (va, value & 0xFFFF_FFFF, value >> 32, flags)

    def protect(self) -> tuple[int, tuple[int, ...]]:
        """What makes deep states possible: a page filled like a table, whose mapping then becomes read-only."""
        rng = self.rng
        page = rng.choice(self._scratch)
        entry = self.hv.memory.u64(page.entry_address) & ~pte.RW
        if rng.randrange(4):
            model = self.hv.validator.table(rng.choice(self._tables))
            table = [each & ~(pte.RW if rng.randrange(3) else 0) if rng.randrange(8) else 0 for each in model]
            self._stores.append((page.va, struct.pack("<512Q", *table)))
        if self.word == 8:
            return Hypercall.UPDATE_VA_MAPPING, (page.va, entry, 2)
        return Hypercall.UPDATE_VA_MAPPING, (page.va, entry & 0xFFFF_FFFF, entry >> 32, 2)

    def set_gdt(self) -> tuple[int, tuple[int, ...]]:
        """Descriptor tables."""
        frames = self.words(*(self.frame() for _ in range(self.rng.randrange(1, 4))))
        return Hypercall.SET_GDT, (self.put(frames), self.rng.choice([0, 1, 512, 513, 7168, 7169, 1 << 31]))

    def update_descriptor(self) -> tuple[int, tuple[int, ...]]:
        """One descriptor."""
        address, value = self.slot(), self.rng.choice([self.rng.getrandbits(64), 0x00AF_9B00_0000_FFFF, self.entry()])
        if self.word == 8:
            return Hypercall.UPDATE_DESCRIPTOR, (address, value)
        halves = (address & 0xFFFF_FFFF, address >> 32, value & 0xFFFF_FFFF, value >> 32)
        return Hypercall.UPDATE_DESCRIPTOR, halves

    def memory_op(self) -> tuple[int, tuple[int, ...]]:
        """Giving memory back, getting some, exchanging."""
        rng = self.rng
        count = rng.randrange(1, 4)
        extents = self.put(self.words(*(self.frame() for _ in range(count))))
        where = rng.choice([extents, extents, self.pointer(), 0])
        much = count if rng.randrange(8) else rng.choice([0, 1 << 20, 1 << 31, (1 << 64) - 1])
        order = rng.choice([0, 0, 0, 1, 9, 10, 70])
        reservation = self.words(where, much) + struct.pack("<IIHxx", order, 0, rng.choice([0x7FF0, 0x7FF0, 0, 1, 9]))
        data = reservation if rng.randrange(3) else reservation * 2 + self.words(0)
        return Hypercall.MEMORY_OP, (rng.choice([*MemoryOp, 7, 8, 13, 28]), self.put(data))

    def grant(self) -> tuple[int, tuple[int, ...]]:
        """Grants of the domain's own, made, mapped, copied, handed over and taken away by itself."""
        rng, grants = self.rng, self.hv.domain.grants
        ref = rng.randrange(8, 14)
        if grants.frames and rng.randrange(3):
            flags = rng.choice([1, 1, 1, 5, 2, 9, 3])
            frame = rng.choice([rng.choice(self._scratch).mfn, self.frame() & 0xFFFF_FFFF])
            entry = struct.pack("<HHI", flags, self.hv.domain.domid, frame)
            place = (grants.frames[0] << PAGE_SHIFT) + ref * (8 if grants.version == 1 else 16)
            self.hv.memory.write(place, entry)
        where = rng.choice([self.pointer() & -PAGE_SIZE, *[rng.choice(self._pages).va] * 3, self.slot()]) & _WORD
        handle, flags, domid = (
            rng.randrange(6),
            rng.choice([2, 2, 2, 1, 3, 6, 18]),
            rng.choice([1] * 8 + [0x7FF0, 0, 9]),
        )
        side = struct.pack("<QHH4x", rng.choice([ref, self.frame() & _WORD]), domid, rng.choice([0, 8, 4095]))
        command, data = rng.choice(
            [
                (0, struct.pack("<QIIHhIQ", where, flags, ref, domid, 0, 0, 0)),
                (0, struct.pack("<QIIHhIQ", where, flags, ref, domid, 0, 0, 0)),
                (1, struct.pack("<QQIhh", where, 0, handle, 0, 0)),
                (7, struct.pack("<QQIhh", where, self.pointer(), handle, 0, 0)),
                (2, struct.pack("<HHIhHIQ", domid, 0, rng.choice([1, 2, 4, 65]), 0, 0, 0, self.pointer())),
                (4, struct.pack("<QHHIhHI", self.frame() & _WORD, domid, 0, ref, 0, 0, 0)),
                (5, side + side + struct.pack("<HHhH", rng.choice([1, 64, 4096, 5000]), rng.randrange(4), 0, 0)),
                (8, struct.pack("<I", rng.choice([1, 2, 2, 3]))),
                (11, struct.pack("<IIhH", ref, rng.randrange(8, 14), 0, 0)),
                (rng.randrange(14), rng.randbytes(40)),
            ]
        )
        return Hypercall.GRANT_TABLE_OP, (command, self.put(data * 2), rng.choice([1, 1, 2, 0]))

    def structured(self) -> tuple[int, tuple[int, ...]]:
        """Any call that takes a command and a structure, the structure full of anything."""
        rng = self.rng
        number = rng.choice(_STRUCTURED)
        data = b"".join(
            struct.pack("<I", self.number() & 0xFFFF_FFFF) if rng.randrange(2) else self.words(self.number())
            for _ in range(rng.randrange(1, 12))
        )
        arguments = [rng.randrange(16), self.put(data), rng.choice([0, 1, 2, 5, 1 << 31])]
        if number == Hypercall.VCPU_OP:
            arguments = [arguments[0], rng.choice([0, 0, 1, 40]), arguments[1]]
        if number == Hypercall.CONSOLE_IO:
            arguments = [rng.randrange(3), rng.choice([0, 5, 4096, 1 << 20, 1 << 31]), self.pointer()]
        return number, tuple(arguments)


_PINS: Final = (MmuExt.PIN_L1_TABLE, MmuExt.PIN_L2_TABLE, MmuExt.PIN_L3_TABLE, MmuExt.PIN_L4_TABLE, MmuExt.UNPIN_TABLE)
_BY_ADDRESS: Final = frozenset({MmuExt.INVLPG_LOCAL, MmuExt.INVLPG_MULTI, MmuExt.INVLPG_ALL, MmuExt.SET_LDT})
_STRUCTURED: Final = (
    Hypercall.VCPU_OP,
    Hypercall.EVENT_CHANNEL_OP,
    Hypercall.GRANT_TABLE_OP,
    Hypercall.SCHED_OP,
    Hypercall.PHYSDEV_OP,
    Hypercall.CALLBACK_OP,
    Hypercall.XEN_VERSION,
    Hypercall.CONSOLE_IO,
    Hypercall.MEMORY_OP,
    Hypercall.XENPMU_OP,
)
_SHAPES: Final = (
    Mutator.protect,
    Mutator.protect,
    Mutator.mmu_update,
    Mutator.mmu_update,
    Mutator.mmuext_op,
    Mutator.mmuext_op,
    Mutator.mmuext_op,
    Mutator.update_va_mapping,
    Mutator.set_gdt,
    Mutator.update_descriptor,
    Mutator.memory_op,
    Mutator.grant,
    Mutator.grant,
    Mutator.structured,
    Mutator.structured,
)


# --- the run ---------------------------------------------------------------------------------------------------------


@attrs.define
class MutationRun:
    """A mutation run over a domain that stands still at a call of its kernel.

    Attributes:
        hv: the hypervisor.
        cpu: the vCPU that calls.
        seed: of everything drawn.
        stretch: calls between two returns to the beginning, each with an audit. What it finds makes the stretch be
            played again, audited after every call, to name the one.
    """

    hv: Hypervisor
    cpu: Vcpu
    seed: int
    stretch: int = 25

    def make(self, count: int) -> int:
        """Make that many calls, or a few less: a stretch ends at a crash and at an iret. Gives how many were made.

        Raises:
            MutationError: one raised, or left the frame table wrong.
        """
        machine = self.hv.machine
        start = machine.snapshot()
        made = 0
        stretch = 0
        try:
            while made < count:
                seed = f"{self.seed}/{stretch}"
                length = min(self.stretch, count - made)
                done = self._stretch(seed, length)
                findings = audit.audit(self.hv)
                machine.restore(start)
                if findings:
                    self._name(seed, length)
                made += done
                stretch += 1
        finally:
            machine.restore(start)
        return made

    def _calls(self, seed: str, count: int) -> Iterator[MutatedCall]:
        mutator = Mutator(self.hv, self.cpu, random.Random(seed))  # noqa: S311 - the same every time on purpose
        for _ in range(count):
            call = mutator.draw()
            yield call
            if self.hv.domain.crashed or call.number == Hypercall.IRET:
                return  # the domain, or its kernel, is not where it could call again

    def _stretch(self, seed: str, count: int) -> int:
        done = 0
        for call in self._calls(seed, count):
            try:
                self._make(call)
            except Exception as failure:
                raise MutationError(f"seed {seed}: {call} raised {type(failure).__name__}: {failure}") from failure
            done += 1
        return done

    def _make(self, call: MutatedCall) -> None:
        """Make a call as the dispatcher gets it from the guest, if the guest could write its structures."""
        hv, cpu = self.hv, self.cpu
        try:
            places = [(hv.space.translate(cpu, address, write=True), data) for address, data in call.stores]
        except GuestFault:
            return
        for place, data in places:
            hv.memory.write(place, data)
        result = dispatch(hv, cpu, call.number, call.arguments)
        if not isinstance(result, int):
            raise MachineError(f"the answer is {result!r}")

    def _name(self, seed: str, count: int) -> NoReturn:
        """Make a stretch again and raise at the call after which the audit finds something."""
        for call in self._calls(seed, count):
            self._make(call)
            findings = audit.audit(self.hv)
            if findings:
                raise MutationError(f"seed {seed}: after {call}: {'; '.join(map(str, findings[:5]))}")
        raise MutationError(f"seed {seed}: the audit found something once and not again")

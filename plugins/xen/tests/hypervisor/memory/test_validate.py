"""Frame types against a model that recounts every reference from scratch after every step."""

from __future__ import annotations

import struct
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pvops_xen.hypervisor.memory.entries import PSE, RW, A, D, P
from pvops_xen.hypervisor.memory.frames import ALLOCATED, GUEST, PINNED, VALIDATED, XEN, FrameTable, FrameType
from pvops_xen.hypervisor.memory.update import write_word
from pvops_xen.hypervisor.memory.validate import Validator, XenSlots

FRAMES = 12
XEN_FRAME = FRAMES - 1


class Memory:
    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def read(self, pa: int, length: int, /) -> bytes:
        return bytes(self.data[pa : pa + length])

    def write(self, pa: int, data: bytes, /) -> None:
        self.data[pa : pa + len(data)] = data

    def u64(self, pa: int, /) -> int:
        return int.from_bytes(self.read(pa, 8), "little")

    def set_u64(self, pa: int, value: int, /) -> None:
        self.write(pa, value.to_bytes(8, "little"))


def present_entries(memory: Memory, mfn: int, level: int) -> list[tuple[int, int]]:
    table = struct.unpack("<512Q", memory.read(mfn << 12, 4096))
    return [(slot, entry) for slot, entry in enumerate(table) if entry & P and not (level == 4 and 256 <= slot <= 271)]


class Types(RuleBasedStateMachine):
    """Random stores, pins and unpins in a domain of a few frames."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory(FRAMES << 12)
        self.frames = FrameTable.of_size(FRAMES)
        for mfn in range(1, FRAMES):
            self.frames.give(mfn, XEN if mfn == XEN_FRAME else GUEST)
        self.validator = Validator(self.frames, self.memory, 64, XenSlots(l4={256: 0x1007}))
        self.pins: Counter[int] = Counter()
        # A tree to begin with, each level with an entry of its own level too: frame n holds a table of level n.
        for level in range(1, 5):
            below = [9, 10] if level == 1 else [level - 1, level]
            table = struct.pack("<QQ", below[0] << 12 | P | RW, below[1] << 12 | P)
            self.memory.write(level << 12, table)

    slots = st.sampled_from([0, 1, 2, 255, 256, 260, 272, 511])
    entries = st.builds(
        lambda mfn, flags: mfn << 12 | flags,
        st.integers(0, FRAMES),
        st.sampled_from([0, P, P | RW, P | A, P | RW | A | D, P | RW | PSE]),
    )

    @rule(mfn=st.integers(0, FRAMES - 1), slot=slots, entry=entries)
    def store(self, mfn: int, slot: int, entry: int) -> None:
        before = self.memory.read(mfn << 12 | slot << 3, 8)
        error = write_word(self.validator, mfn << 12 | slot << 3, entry)
        if error:
            assert error < 0
            assert self.memory.read(mfn << 12 | slot << 3, 8) == before

    @precondition(lambda self: any(self.frames.types[mfn] == 0 for mfn in range(1, XEN_FRAME)))
    @rule(data=st.data(), slot=slots, entry=entries)
    def scribble(self, data: st.DataObject, slot: int, entry: int) -> None:
        """A guest with a writable mapping writes what it likes to a frame that is no table."""
        free = [
            mfn for mfn in range(1, XEN_FRAME) if self.frames.in_use_as(mfn) in {FrameType.NONE, FrameType.WRITABLE}
        ]
        if free:
            mfn = data.draw(st.sampled_from(free))
            self.memory.write(mfn << 12 | slot << 3, struct.pack("<Q", entry))

    @rule(level=st.integers(1, 4))
    def pin_the_tree(self, level: int) -> None:
        self.pin(level, level)

    @rule(level=st.integers(1, 4))
    def unpin_the_tree(self, level: int) -> None:
        self.unpin(level)

    @rule(mfn=st.integers(0, FRAMES - 1), level=st.integers(1, 4))
    def pin(self, mfn: int, level: int) -> None:
        if self.validator.get_page_and_type(mfn, FrameType(level)):
            return
        if self.pins[mfn]:
            self.validator.put_page_and_type(mfn)
        else:
            self.pins[mfn] = 1
            self.frames.flags[mfn] |= PINNED

    @rule(mfn=st.integers(0, FRAMES - 1))
    def unpin(self, mfn: int) -> None:
        if self.pins[mfn]:
            self.pins[mfn] = 0
            self.frames.flags[mfn] &= ~PINNED
            self.validator.put_page_and_type(mfn)

    @invariant()
    def counts_agree(self) -> None:
        refs: Counter[int] = Counter()
        types: Counter[int] = Counter()
        for mfn in range(1, FRAMES):
            assert self.frames.flags[mfn] & ALLOCATED, f"{mfn} was freed"
            refs[mfn] += 1
            if self.pins[mfn]:
                refs[mfn] += 1
                types[mfn] += 1
            kind = self.frames.in_use_as(mfn)
            if not FrameType.L1 <= kind <= FrameType.L4:
                continue
            assert self.frames.flags[mfn] & VALIDATED
            for _slot, entry in present_entries(self.memory, mfn, kind):
                self._count(mfn, int(kind), entry, refs, types)
        for mfn in range(1, FRAMES):
            assert self.frames.refs[mfn] == refs[mfn], f"references of {mfn}"
            assert self.frames.types[mfn] == types[mfn], f"type references of {mfn}"

    def _count(self, table: int, level: int, entry: int, refs: Counter[int], types: Counter[int]) -> None:
        target = entry >> 12 & 0xFF
        assert self.frames.owner[target] == GUEST
        if level == 1:
            refs[target] += 1
            if entry & RW:
                types[target] += 1
                assert self.frames.in_use_as(target) == FrameType.WRITABLE
            return
        if target == table:
            assert not entry & RW
            return
        refs[target] += 1
        types[target] += 1
        held = self.frames.in_use_as(target)
        assert held == level - 1 or (held == level and not entry & RW)

    @invariant()
    def xen_slots_hold_xens_entries(self) -> None:
        for mfn in range(1, FRAMES):
            if self.frames.in_use_as(mfn) == FrameType.L4:
                assert struct.unpack("<Q", self.memory.read(mfn << 12 | 256 << 3, 8))[0] == 0x1007


TestTypes = Types.TestCase
TestTypes.settings = settings(max_examples=80, stateful_step_count=30, deadline=None, derandomize=True)

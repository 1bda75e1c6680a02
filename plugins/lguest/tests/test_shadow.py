"""Shadow page tables against an independent model of a guest that tells, or does not, what it changed."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from pvops_lguest.host.frames import FramePool
from pvops_lguest.host.kill import GuestKilledError
from pvops_lguest.host.memory import GuestMemory
from pvops_lguest.host.paging import THREE_LEVELS, TWO_LEVELS, TableForm
from pvops_lguest.host.shadow import ShadowTables

P, RW, US, PWT, A, D, PSE, G = 1, 2, 4, 8, 0x20, 0x40, 0x80, 0x100
KERNEL = 0xC0000000
RAM_FRAMES = 64
LIMIT = RAM_FRAMES << 12

# One more than the host shadows at a time.
DIRECTORIES = [frame << 12 for frame in range(5)]
KERNEL_TABLES = [6 << 12, 7 << 12]
USER_TABLES = [frame << 12 for frame in range(8, 18)]
MIDDLE_TABLES = [frame << 12 for frame in range(18, 29)]
FIRST_DATA = 29
STACK_VA = KERNEL + 5 * 4096


class Form:
    """Addresses that the model looks at, and where their entries are, in one form of tables."""

    def __init__(self, paging: TableForm, frames: int) -> None:
        self.paging, self.frames, self.size = paging, frames, paging.size
        self.shift, self.entries = paging.uppers[-1].shift, 4096 // paging.size
        self.user_indexes = (0, (KERNEL >> self.shift) - 1)
        pages = (0, self.entries - 1)
        self.user = [index << self.shift | page << 12 for index in self.user_indexes for page in pages]
        self.kernel = [KERNEL + (index << self.shift) + (page << 12) for index in (0, 1) for page in pages]
        self.vas = self.user + self.kernel

    def middle(self, gpgdir: int, va: int) -> int:
        """The table in the middle: each directory has two for user mode, and all have one for the kernel."""
        return MIDDLE_TABLES[-1] if va >= KERNEL else MIDDLE_TABLES[2 * (gpgdir >> 12) + (va >> 30 > 0)]

    def pde(self, gpgdir: int, va: int) -> int:
        """Where a directory's entry that leads to the last table is."""
        if self.paging is TWO_LEVELS:
            return gpgdir + (va >> 22) * 4
        return self.middle(gpgdir, va) + (va >> 21 & 511) * 8

    def pte(self, pde: int, va: int) -> int:
        return (pde & FRAME) + (va >> 12) % self.entries * self.size


FRAME = 0xFFFFF000
# Switcher, four directories, and the tables of one address space: the host runs short all the time.
FORMS = [Form(TWO_LEVELS, 9), Form(THREE_LEVELS, 15)]
INDEXES = st.integers(0, 3)


class Memory:
    """Flat memory with the accessors that the host uses."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def read(self, pa: int, length: int) -> bytes:
        assert 0 <= pa <= pa + length <= len(self.data)
        return bytes(self.data[pa : pa + length])

    def write(self, pa: int, data: bytes) -> None:
        assert 0 <= pa <= pa + len(data) <= len(self.data)
        self.data[pa : pa + len(data)] = data

    def u32(self, pa: int) -> int:
        return struct.unpack_from("<I", self.data, pa)[0]

    def set_u32(self, pa: int, value: int) -> None:
        struct.pack_into("<I", self.data, pa, value)

    def u64(self, pa: int) -> int:
        return struct.unpack_from("<Q", self.data, pa)[0]

    def set_u64(self, pa: int, value: int) -> None:
        struct.pack_into("<Q", self.data, pa, value)


class Cpu:
    """A walk of the shadow tables with a TLB that forgets only what it is told to forget."""

    def __init__(self, memory: Memory, form: Form) -> None:
        self.memory, self.form = memory, form
        self.cr3 = 0
        self.tlb: dict[int, tuple[int, int]] = {}

    def load(self, cr3: int) -> None:
        self.cr3 = cr3
        self.tlb.clear()

    def flush(self, va: int | None) -> None:
        if va is None:
            self.tlb.clear()
        else:
            self.tlb.pop(va >> 12, None)

    def walk(self, va: int) -> tuple[int, int]:
        if self.form.paging is TWO_LEVELS:
            pde = self.memory.u32(self.cr3 + (va >> self.form.shift) * 4)
            return pde, self.memory.u32(self.form.pte(pde, va)) if pde & P else 0
        pointer = self.memory.u64(self.cr3 + (va >> 30) * 8)
        pde = self.memory.u64((pointer & FRAME) + (va >> 21 & 511) * 8) if pointer & P else 0
        return pde, self.memory.u64(self.form.pte(pde, va)) if pde & P else 0

    def allows(self, va: int, *, write: bool, user: bool) -> bool:
        needed = P | (RW if write else 0) | (US if user else 0)
        for pair in (self.tlb.get(va >> 12, (0, 0)), self.walk(va)):
            if pair[0] & pair[1] & needed == needed:
                self.tlb[va >> 12] = pair
                return True
        return False


def expected_entry(gpte: int) -> int:
    """What a guest entry may look like to the CPU, stated apart from the code under test."""
    entry = gpte - (gpte & G)
    if not gpte & D:
        entry -= entry & RW
    return entry


# None: the directory in use, which is where most of a guest's changes are.
DIRECTORY = st.one_of(st.none(), st.sampled_from(DIRECTORIES))
FLAGS = st.builds(
    lambda *bits: sum(bits),
    *(st.sampled_from((0, bit)) for bit in (RW, US, A, D, G)),
)
PTES = st.one_of(
    st.just(0),
    st.builds(lambda frame, flags: frame << 12 | flags | P, st.integers(FIRST_DATA, RAM_FRAMES - 1), FLAGS),
    st.builds(lambda bits: bits << 1, st.integers(0, 2**31 - 1)),
)


ACCESS = st.tuples(st.integers(0, 7), st.booleans(), st.booleans())


class ShadowMachine(RuleBasedStateMachine):
    """Guest writes with and without a word, accesses, and every page-table hypercall."""

    @initialize(seed=st.randoms(use_true_random=False), form=st.sampled_from(FORMS))
    def start(self, seed: random.Random, form: Form) -> None:
        self.form, self.memory = form, Memory((RAM_FRAMES + form.frames) << 12)
        self.cpu = Cpu(self.memory, form)
        self.entry = self.memory.u32 if form.size == 4 else self.memory.u64
        self.set_entry = self.memory.set_u32 if form.size == 4 else self.memory.set_u64
        for gpgdir in DIRECTORIES:
            if form.paging is THREE_LEVELS:
                for va in (0, form.user_indexes[1] << 21, KERNEL):
                    self.memory.set_u64(gpgdir + (va >> 30) * 8, form.middle(gpgdir, va) | P)
            for index, table in enumerate(KERNEL_TABLES):
                self.set_entry(form.pde(gpgdir, KERNEL + (index << form.shift)), table | P | RW)
            for number, index in enumerate(form.user_indexes):
                table = (8 + 2 * (gpgdir >> 12) + number) << 12
                self.set_entry(form.pde(gpgdir, index << form.shift), table | P | RW | US)
        for table in (*USER_TABLES, *KERNEL_TABLES):
            for page in (0, form.entries - 1):
                self.set_entry(table + page * form.size, seed.randrange(FIRST_DATA, 63) << 12 | P | RW | US)
        self.set_entry(KERNEL_TABLES[0] + 5 * form.size, 63 << 12 | P | RW | A | D)
        guest = GuestMemory(self.memory, LIMIT)
        frames = FramePool(self.memory, RAM_FRAMES, form.frames)
        self.frames = frames
        self.switcher = frames.take()
        self.shadow = ShadowTables(
            self.memory,
            guest,
            frames,
            self.cpu,
            form.paging,
            kernel_address=KERNEL,
            choose=seed.randrange,
            refuses_pwt=True,
        )
        self.shadow.start(DIRECTORIES[0], self.switcher | P | RW)
        self.shadow.pinned = (STACK_VA + 4095,)
        self.shadow.pin_all()
        self.gpgdir = DIRECTORIES[0]
        self.may_pde: dict[tuple[int, int], set[int]] = {}
        self.may_pte: dict[tuple[int, int], set[int]] = {}
        self.note()

    # The model: for each address, the entries that a shadow may still hold

    @staticmethod
    def owner(gpgdir: int, va: int) -> int:
        return -1 if va >= KERNEL else gpgdir

    def guest_walk(self, gpgdir: int, va: int) -> tuple[int, int]:
        pde = self.entry(self.form.pde(gpgdir, va))
        return pde, self.entry(self.form.pte(pde, va)) if pde & P else 0

    def note(self) -> None:
        for gpgdir in DIRECTORIES:
            for va in self.form.vas:
                pde, pte = self.guest_walk(gpgdir, va)
                self.may_pde.setdefault((self.owner(gpgdir, va), va >> self.form.shift), set()).add(pde & 0xFFF)
                self.may_pte.setdefault((self.owner(gpgdir, va), va), set()).add(pte)

    def told(self, gpgdirs: list[int], vas: list[int], *, directory: bool) -> None:
        for gpgdir in gpgdirs:
            for va in vas:
                key = self.owner(gpgdir, va)
                self.may_pte[key, va] = set()
                if directory:
                    self.may_pde[key, va >> self.form.shift] = set()
        self.note()

    # What the guest does

    @rule(where=DIRECTORY, which=INDEXES, pte=PTES, tell=st.booleans())
    def write_user_pte(self, where: int | None, which: int, pte: int, *, tell: bool) -> None:
        gpgdir, va = self.gpgdir if where is None else where, self.form.user[which]
        self.access(va, write=bool(pte & A), user=False)
        pde, _ = self.guest_walk(gpgdir, va)
        if not pde & P:
            return
        # Tables may be shared between directories, whose other users are then not told.
        self.set_entry(self.form.pte(pde, va), pte)
        self.note()
        if tell:
            self.shadow.set_pte(gpgdir, va, pte)
            self.told([gpgdir], [va], directory=False)

    @rule(which=INDEXES, pte=PTES, tell=st.booleans(), gpgdir=st.sampled_from(DIRECTORIES))
    def write_kernel_pte(self, which: int, pte: int, gpgdir: int, *, tell: bool) -> None:
        va = self.form.kernel[which]
        self.access(va, write=bool(pte & A), user=False)
        pde, _ = self.guest_walk(gpgdir, va)
        self.set_entry(self.form.pte(pde, va), pte)
        self.note()
        if tell:
            self.shadow.set_pte(gpgdir, va, pte)
            self.told(DIRECTORIES, [va], directory=False)

    @rule(
        where=DIRECTORY,
        last=st.booleans(),
        table=st.sampled_from(USER_TABLES),
        flags=st.sampled_from((0, P, P | RW, P | US, P | RW | US, P | RW | US | A | D)),
        tell=st.booleans(),
    )
    def write_user_pde(self, where: int | None, table: int, flags: int, *, last: bool, tell: bool) -> None:
        gpgdir, index = self.gpgdir if where is None else where, self.form.user_indexes[last]
        self.access(index << self.form.shift, write=bool(flags & A), user=False)
        self.set_entry(self.form.pde(gpgdir, index << self.form.shift), table | flags)
        self.note()
        if tell:
            self.shadow_drops([gpgdir], index)

    @rule(flags=st.sampled_from((P, P | RW, P | RW | US)), tell=st.booleans())
    def write_kernel_pde(self, flags: int, *, tell: bool) -> None:
        index = (KERNEL >> self.form.shift) + 1
        for gpgdir in DIRECTORIES:
            self.set_entry(self.form.pde(gpgdir, index << self.form.shift), KERNEL_TABLES[1] | flags)
        self.note()
        if tell:
            self.shadow_drops(DIRECTORIES, index)

    def shadow_drops(self, gpgdirs: list[int], index: int) -> None:
        """SET_PGD of the entry, or the SET_PMD of PAE, which is for all that there is."""
        if self.form.paging is THREE_LEVELS:
            self.flush_all()
            return
        for gpgdir in gpgdirs:
            self.shadow.set_pgd(gpgdir, index)
        self.told(gpgdirs, [va for va in self.form.vas if va >> self.form.shift == index], directory=True)

    @rule(gpgdir=st.sampled_from(DIRECTORIES), top=st.integers(0, 2))
    def a_top_entry_of_pae(self, gpgdir: int, top: int) -> None:
        if self.form.paging is THREE_LEVELS:
            self.shadow.set_pgd(gpgdir, top)
            self.told([gpgdir], [va for va in self.form.user if va >> 30 == top], directory=True)

    @rule(gpgdir=st.sampled_from(DIRECTORIES), index=st.integers(1023, 5000))
    def switcher_pmd_is_ignored(self, gpgdir: int, index: int) -> None:
        self.shadow.set_pgd(gpgdir, index)

    @rule(gpgdir=st.sampled_from(DIRECTORIES))
    def new_pgtable(self, gpgdir: int) -> None:
        self.shadow.new_pgtable(gpgdir)
        self.gpgdir = gpgdir

    @rule()
    def flush_user(self) -> None:
        self.shadow.flush_user()
        self.told([self.gpgdir], self.form.user, directory=True)

    @rule()
    def flush_all(self) -> None:
        self.shadow.clear_all()
        self.told(DIRECTORIES, self.form.vas, directory=True)

    @rule(accesses=st.lists(ACCESS, min_size=1, max_size=8))
    def run_a_while(self, accesses: list[tuple[int, bool, bool]]) -> None:
        for which, write, user in accesses:
            self.access(self.form.vas[which], write=write, user=user)

    def access(self, va: int, *, write: bool, user: bool) -> None:
        if self.cpu.allows(va, write=write, user=user):
            return
        pde, pte = self.guest_walk(self.gpgdir, va)
        needed = P | (RW if write else 0) | (US if user else 0)
        permitted = pde & pte & needed == needed
        if permitted and (pte & (PSE | PWT) or pte >> 12 >= RAM_FRAMES):
            with pytest.raises(GuestKilledError, match="bad page table entry"):
                self.shadow.demand(va, write * 2 | user * 4)
            return
        assert self.shadow.demand(va, write * 2 | user * 4) == permitted
        self.note()
        if permitted:
            # The access goes through now, or the guest would fault for ever.
            assert self.cpu.allows(va, write=write, user=user)
            assert self.guest_walk(self.gpgdir, va)[1] & A
            assert not write or self.guest_walk(self.gpgdir, va)[1] & D

    # What must hold

    @invariant()
    def shadow_is_what_the_guest_has_or_had_untold(self) -> None:
        if not hasattr(self, "cpu") or not self.cpu.cr3:
            return
        pairs = {va: self.cpu.walk(va) for va in self.form.vas}
        cached = {page << 12: pair for page, pair in self.cpu.tlb.items()}
        for source in (pairs, cached):
            for va, (pde, pte) in source.items():
                if not (pde & P and pte & P):
                    continue
                key = self.owner(self.gpgdir, va)
                assert pde & 0xFFF in self.may_pde[key, va >> self.form.shift]
                assert pte in {expected_entry(entry) for entry in self.may_pte[key, va]}
                assert pte >> 12 < RAM_FRAMES

    @invariant()
    def stack_and_switcher_stay(self) -> None:
        if hasattr(self, "cpu") and self.cpu.cr3:
            assert self.cpu.walk(STACK_VA)[1] & (P | RW) == P | RW
            assert self.cpu.walk(self.form.paging.switcher)[0] == self.switcher | P | RW


ShadowMachine.TestCase.settings = settings(
    max_examples=50,
    stateful_step_count=50,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestShadow = ShadowMachine.TestCase

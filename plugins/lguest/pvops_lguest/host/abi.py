"""The generations of the lguest ABI: call numbers, argument registers, struct lguest_data, and device descriptors.

The ABI was private to one kernel version (guest and host were built from one tree) and changed under its
users. Source: include/linux/lguest.h and lguest_launcher.h (2.6.23), arch/x86/include/asm/lguest_hcall.h,
include/linux/lguest.h (2.6.24, 2.6.27, 2.6.32 and 2.6.35), commits 4cd8b5e2a159 and 091ebf07a245 (there and back).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import UsageError
from pvops_lguest.public import BITS, LGUEST

if TYPE_CHECKING:
    from pvops_core.headers import CStruct

TRAP_ENTRY = 0x1F
"""The vector of a hypercall: ``int $0x1f``."""

VMCALL = b"\x0f\x01\xc1"

RING_SIZE = 64
"""Entries of the ring of asynchronous hypercalls."""

DONE = 0xFF
"""Ring status of a free or finished entry; 0 is a call that waits."""

IRQS = 32
"""Virtual interrupts of a guest; 0 is the timer."""


class Call(enum.Enum):
    """The hypercalls, by the names of the newest generation that has each."""

    FLUSH_ASYNC = "FLUSH_ASYNC"
    LGUEST_INIT = "LGUEST_INIT"
    CRASH = "CRASH"
    SHUTDOWN = "SHUTDOWN"
    LOAD_GDT = "LOAD_GDT"
    NEW_PGTABLE = "NEW_PGTABLE"
    FLUSH_TLB = "FLUSH_TLB"
    LOAD_IDT_ENTRY = "LOAD_IDT_ENTRY"
    SET_STACK = "SET_STACK"
    TS = "TS"
    SET_CLOCKEVENT = "SET_CLOCKEVENT"
    HALT = "HALT"
    BIND_DMA = "BIND_DMA"
    SEND_DMA = "SEND_DMA"
    SET_PTE = "SET_PTE"
    SET_PGD = "SET_PGD"
    SET_PMD = "SET_PMD"
    """Of the directory in generations without SET_PGD, else of PAE's level in the middle."""
    LOAD_TLS = "LOAD_TLS"
    NOTIFY = "NOTIFY"
    LOAD_GDT_ENTRY = "LOAD_GDT_ENTRY"
    SEND_INTERRUPTS = "SEND_INTERRUPTS"


class Descriptors(enum.Enum):
    """How the page above the guest's memory tells it of its devices (include/linux/lguest_launcher.h)."""

    BUS = "bus"
    """2.6.23: an array of devices with pages of their own, whose data go by SEND_DMA and BIND_DMA."""
    FIELDS = "fields"
    """2.6.24: virtio, with a list of typed fields for each device."""
    COUNTED = "counted"
    """From 2.6.25 on: virtio, with the numbers of queues, feature bytes and configuration bytes first."""


@attrs.frozen
class DataLayout:
    """Byte offsets of the members of struct lguest_data that a run needs; None where a generation has no such member.

    Widths: ``blocked_interrupts`` is one word of 32 bits; ``time`` is two 32-bit words (seconds, nanoseconds);
    ``guestid`` is 16 bit; ``hcall_status`` is 64 bytes; the others are 32 bit.
    """

    size: int
    hcall_status: int
    hcalls: int
    reserve_mem: int
    tsc_khz: int
    noirq_start: int
    noirq_end: int
    irq_enabled: int
    blocked_interrupts: int
    cr2: int
    time: int
    irq_pending: int | None = None
    guestid: int | None = None
    pgdir: int | None = None
    kernel_address: int | None = None
    syscall_vec: int | None = None

    @classmethod
    def of(cls, structure: CStruct) -> DataLayout:
        """That of a declaration."""
        names = structure.names(BITS)
        # Only a generation that has a member passes its offset, so None is left for one that it lacks.
        return cls(structure.size(BITS), **{name: structure.offset(name, BITS) for name in names})


@attrs.frozen
class Abi:
    """One generation.

    Attributes:
        name: the first kernel release that has it.
        calls: call number to hypercall.
        registers: where argument 1, 2, … travel; the number is in eax.
        structure: struct lguest_data.
        refuses_pwt: a page-table entry with PWT set kills the guest (until 2.6.25).
        descriptors: the form of its page of devices.
        vmcall: hypercalls come by this instruction too, an invalid opcode which the host looks at (to 2.6.34).
        numbers: hypercall to call number.
    """

    name: str
    calls: Mapping[int, Call]
    registers: tuple[str, ...]
    structure: CStruct
    refuses_pwt: bool
    descriptors: Descriptors
    vmcall: bool = False
    numbers: Mapping[Call, int] = attrs.field(init=False)

    @numbers.default
    def _numbers(self) -> Mapping[Call, int]:
        return MappingProxyType({call: number for number, call in self.calls.items()})

    @cached_property
    def data(self) -> DataLayout:
        """Where the members of struct lguest_data are."""
        return DataLayout.of(self.structure)

    @cached_property
    def ring_words(self) -> tuple[int, ...]:
        """Which argument (0 is the number) each 32-bit word of a ring entry holds."""
        entry = self.structure.place("hcalls[0]", BITS).type
        # struct hcall_args of 2.6.24 keeps eax, ebx, ecx, edx, so its last word is argument 1.
        return tuple(int(name.removeprefix("arg")) for name in entry.fields)

    @property
    def arguments(self) -> int:
        """How many arguments a call carries."""
        return len(self.registers)

    @property
    def ring_stride(self) -> int:
        """Bytes of one ring entry."""
        return 4 * len(self.ring_words)

    def has(self, call: Call) -> bool:
        """Whether this generation knows ``call``."""
        return call in self.numbers

    def with_pae(self) -> Abi:
        """The generation as host and guest with X86_PAE speak it.

        Raises:
            UsageError: it was before there were any (2.6.31).
        """
        if not self.has(Call.SET_PGD):
            raise UsageError(f"lguest {self.name} has no guests with PAE; the first are those of 2.6.31")
        # 13 was SEND_DMA's before 2.6.24; a kernel with X86_PAE has LHCALL_SET_PMD there.
        return attrs.evolve(self, calls=MappingProxyType({**self.calls, 13: Call.SET_PMD}))


# Those of asm/lguest_hcall.h that no generation gave another meaning.
_COMMON = {
    0: Call.FLUSH_ASYNC,
    1: Call.LGUEST_INIT,
    4: Call.NEW_PGTABLE,
    5: Call.FLUSH_TLB,
    6: Call.LOAD_IDT_ENTRY,
    7: Call.SET_STACK,
    8: Call.TS,
    9: Call.SET_CLOCKEVENT,
    10: Call.HALT,
    14: Call.SET_PTE,
    16: Call.LOAD_TLS,
}

# LHCALL_SET_PMD of these is of a page directory's entry: with two levels the middle one is folded into it.
_EARLY = _COMMON | {2: Call.CRASH, 3: Call.LOAD_GDT, 15: Call.SET_PMD}

ABI_2_6_23 = Abi(
    name="2.6.23",
    calls=MappingProxyType(
        _EARLY | {12: Call.BIND_DMA, 13: Call.SEND_DMA},
    ),
    # eax has the number throughout; hcall() of 2.6.23 passes the rest so.
    registers=("edx", "ebx", "ecx"),
    structure=LGUEST["lguest_data_23"],
    refuses_pwt=True,
    descriptors=Descriptors.BUS,
)

ABI_2_6_24 = Abi(
    name="2.6.24",
    calls=MappingProxyType(_EARLY | {17: Call.NOTIFY}),
    registers=("edx", "ebx", "ecx"),
    structure=LGUEST["lguest_data_24"],
    refuses_pwt=True,
    descriptors=Descriptors.FIELDS,
)

ABI_2_6_25 = attrs.evolve(
    ABI_2_6_24,
    name="2.6.25",
    # A reason for the end came with restarts (LGUEST_SHUTDOWN_RESTART), and the call's name with it.
    calls=MappingProxyType({**ABI_2_6_24.calls, 2: Call.SHUTDOWN}),
    refuses_pwt=False,
    descriptors=Descriptors.COUNTED,
)

# LOAD_GDT went: since per-CPU areas a GDT need not lie where __pa() is right. SEND_INTERRUPTS came with irq_pending.
_LATE = _COMMON | {2: Call.SHUTDOWN, 17: Call.NOTIFY, 18: Call.LOAD_GDT_ENTRY, 19: Call.SEND_INTERRUPTS}

ABI_2_6_30 = attrs.evolve(
    ABI_2_6_25,
    name="2.6.30",
    calls=MappingProxyType(_LATE | {15: Call.SET_PMD}),
    # Those of kvm_hypercall3() (asm/kvm_para.h).
    registers=("ebx", "ecx", "edx"),
    structure=LGUEST["lguest_data_30"],
    vmcall=True,
)

ABI_2_6_35 = Abi(
    name="2.6.35",
    calls=MappingProxyType(_LATE | {15: Call.SET_PGD}),
    registers=("ebx", "ecx", "edx", "esi"),
    structure=LGUEST["lguest_data_35"],
    refuses_pwt=False,
    descriptors=Descriptors.COUNTED,
)

ABI_2_6_31 = attrs.evolve(
    ABI_2_6_35,
    name="2.6.31",
    vmcall=True,
    structure=LGUEST["lguest_data_31"],
)

ABIS: Mapping[str, Abi] = MappingProxyType(
    {abi.name: abi for abi in (ABI_2_6_23, ABI_2_6_24, ABI_2_6_25, ABI_2_6_30, ABI_2_6_31, ABI_2_6_35)}
)

_FREE_RING = bytes([DONE]) * RING_SIZE


def abi_by_name(name: str) -> Abi:
    """The generation called ``name``.

    Raises:
        UsageError: there is none of that name.
    """
    try:
        return ABIS[name]
    except KeyError:
        raise UsageError(f"no lguest ABI {name!r}; known are {', '.join(ABIS)}") from None


def abi_of_data(data: bytes) -> Abi | None:
    """The generation whose statically initialised struct lguest_data looks like ``data``, if one does.

    A kernel's own copy starts with every ring entry free, so the run of 64 bytes 0xFF tells where the ring
    is; where the system call vector (0x80) is behind it tells the others apart, and 2.6.23's ends before it.
    """
    for abi in (ABI_2_6_31, ABI_2_6_35, ABI_2_6_24, ABI_2_6_23):
        layout = abi.data
        if data[layout.hcall_status : layout.hcalls] != _FREE_RING:
            continue
        # 2.6.23 has no vector to look for, and is asked last.
        if layout.syscall_vec is None:
            return abi
        # Statically initialised (.syscall_vec = SYSCALL_VECTOR); a chance run of 0xFF is not followed by it.
        if int.from_bytes(data[layout.syscall_vec : layout.syscall_vec + 4], "little") == 0x80:
            return abi
    return None

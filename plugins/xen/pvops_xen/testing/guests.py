"""A PV guest of a few pages, in the style of the Xen Test Framework: it does what a test asks and says how it went.

It is a real ELF image with Xen notes, built by the domain builder. The guest registers handlers of its own for every
exception and callback; each records what came and stops the domain, so that a test can look at it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.closing import Closing
from pvops_core.guests import Kernel
from pvops_core.images import load_image
from pvops_core.machine.cpu.faults import WITH_ERROR_CODE
from pvops_core.session import Session
from pvops_core.testing.assembly import assemble
from pvops_core.testing.images import ElfBuilder
from pvops_xen import backend
from pvops_xen.domain.notes import ElfNote
from pvops_xen.hypervisor.abi import NR_TRAPS, PAGE_SHIFT, PAGE_SIZE, Hypercall
from pvops_xen.hypervisor.memory import entries as pte
from pvops_xen.hypervisor.memory.walk import guest_l1e

if TYPE_CHECKING:
    from pvops_core.machine import Stop, Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

BASE: Final = {64: 0xFFFF_FFFF_8000_0000, 32: 0xC000_0000}
MEMORY: Final = 8 << 20
_START: Final = 0x10_0000
PAGES: Final = (
    "kernel",
    "probe",
    "mailbox",
    "traps",
    "entry_stack",
    "stack_low",
    "stack",
    "data",
    *map(str, range(12)),
)
"""Pages of the image, in a row; those with numbers are the test's own."""
EVENT, FAILSAFE, SYSCALL, SYSENTER = 0x100, 0x101, 0x102, 0x103
"""What is recorded in place of a vector when a callback was entered."""
LEAVE: Final = 0x81
"""Software interrupt by which user code says that it is done."""
GUARDED: Final = 0x83
"""Software interrupt that is not open to user code."""
_VECTORS: Final = (*range(20), 0x80, LEAVE, GUARDED, EVENT, FAILSAFE, SYSCALL, SYSENTER)
_OPEN: Final = frozenset({3, 4, LEAVE})
_DONE, _TRAPPED = 1, 2
_REGISTERS: Final = {
    64: ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16))),
    32: ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp"),
}
_ARGUMENTS: Final = {
    64: ("rax", "rdi", "rsi", "rdx", "r10", "r8", "r9"),
    32: ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp"),
}
# Offsets in the mailbox.
_ARGS, _STATE, _VECTOR, _ZERO, _SAVED = 0, 0x80, 0x88, 0x90, 0x100
_WAITING: Final = 0xE00  # in the page of the kernel: room for code that waits for another vCPU
KERNEL_SELECTORS: Final = {64: (0xE033, 0xE02B), 32: (0xE019, 0xE021)}
USER_SELECTORS: Final = {64: (0xE033, 0xE02B), 32: (0xE02B, 0xE033)}


@attrs.frozen
class GuestOutcome:
    """How a piece of code ended.

    Attributes:
        kind: "done", "trap", or why the run ended ("crash", "timeout", …).
        vector: exception, or one of EVENT, FAILSAFE, SYSCALL and SYSENTER.
        error: its error code, 0 if it has none.
        address: where the guest would go on.
        selector: CS in the frame.
        flags: RFLAGS in the frame.
        cr2: vcpu_info's.
        detail: Xen's message for a crash.
        registers: general registers when it ended.
    """

    kind: str
    vector: int = 0
    error: int = 0
    address: int = 0
    selector: int = 0
    flags: int = 0
    cr2: int = 0
    detail: str = ""
    registers: Mapping[str, int] = attrs.field(factory=dict, repr=False, eq=False)


def address_of(bits: int, page: str) -> int:
    """Virtual address of one of PAGES."""
    return BASE[bits] + _START + (PAGES.index(page) << PAGE_SHIFT)


def _program(bits: int) -> str:
    """The kernel: its start, the stub for hypercalls, the handlers, and the end of everything."""
    box = address_of(bits, "mailbox")
    trap = "syscall" if bits == 64 else "int 0x82"
    args, word = _ARGUMENTS[bits], bits // 8
    segment = "ss:" if bits == 32 else ""  # the others may be null when a handler is entered
    save = "\n".join(f"mov {segment}[{box + _SAVED + i * word:#x}], {name}" for i, name in enumerate(_REGISTERS[bits]))
    load = "\n".join(f"mov {name}, [{box + _ARGS + i * word:#x}]" for i, name in enumerate(args))
    handlers = "\n".join(f"h{v}: mov dword ptr {segment}[{box + _VECTOR:#x}], {v}\n jmp trapped" for v in _VECTORS)
    return f"""
    jmp start
    .balign 16
    call:
        {load}
        {trap}
        mov [{box + _ARGS:#x}], {args[0]}
        jmp done
    .balign 16
    leave:
        mov eax, {int(Hypercall.IRET)}
        {trap}
    .balign 16
    done:
        {save}
        mov dword ptr [{box + _STATE:#x}], {_DONE}
        jmp stop
    start:
        mov {args[1]}, {address_of(bits, "traps"):#x}
        mov eax, {int(Hypercall.SET_TRAP_TABLE)}
        {trap}
        jmp done
    trapped:
        {save}
        mov dword ptr {segment}[{box + _STATE:#x}], {_TRAPPED}
    stop:
        mov eax, {int(Hypercall.SCHED_OP)}
        mov {args[1]}, 2
        mov {args[2]}, {box + _ZERO:#x}
        {trap}
        jmp stop
    {handlers}
    """


def _labels(bits: int) -> dict[str, int]:
    """Addresses of the labels: a table of them is assembled behind the program."""
    names = ["call", "leave", "done", *(f"h{v}" for v in _VECTORS)]
    table = "".join(f"\n{'.quad' if bits == 64 else '.long'} {name}" for name in names)
    code = assemble(_program(bits) + table, bits, address_of(bits, "kernel"))
    values = struct.unpack_from(f"<{len(names)}{'Q' if bits == 64 else 'I'}", code, len(code) - len(names) * bits // 8)
    return dict(zip(names, values, strict=True))


def _trap_table(bits: int, labels: Mapping[str, int]) -> bytes:
    form, selector = ("<BBH4xQ" if bits == 64 else "<BBHI"), KERNEL_SELECTORS[bits][0]
    masking = 4
    entries = (
        struct.pack(form, vector, masking | (3 if vector in _OPEN else 0), selector, labels[f"h{vector}"])
        for vector in _VECTORS
        if vector < NR_TRAPS
    )
    return b"".join(entries) + bytes(16)


def image(bits: int, changes: Mapping[ElfNote, bytes | None] | None = None) -> bytes:
    """The ELF file; ``changes`` are notes to add, or with None to leave out."""
    labels = _labels(bits)
    builder = ElfBuilder(bits, address_of(bits, "kernel"))
    builder.text(".text", assemble(_program(bits), bits, address_of(bits, "kernel")).ljust(PAGE_SIZE, b"\xcc"))
    builder.text(".probe", bytes(PAGE_SIZE))
    rest = bytearray((len(PAGES) - 2) * PAGE_SIZE)
    table = _trap_table(bits, labels)
    at = address_of(bits, "traps") - address_of(bits, "mailbox")
    rest[at : at + len(table)] = table
    builder.section(".data", bytes(rest), address=address_of(bits, "mailbox"))
    word = bits // 8
    notes: dict[ElfNote, bytes | None] = {
        ElfNote.GUEST_OS: b"test\0",
        ElfNote.LOADER: b"generic\0",
        ElfNote.XEN_VERSION: b"xen-3.0\0",
        ElfNote.VIRT_BASE: BASE[bits].to_bytes(word, "little"),
        ElfNote.ENTRY: address_of(bits, "kernel").to_bytes(word, "little"),
        **({ElfNote.PAE_MODE: b"yes\0"} if bits == 32 else {}),
        **(changes or {}),
    }
    builder.notes(*(("Xen", kind, data) for kind, data in notes.items() if data is not None))
    return builder.build()


class SmallGuest(Closing):
    """A domain with this guest, started and waiting. A context manager.

    Args:
        bits: 64, or 32 for a PAE guest.
        vcpus: how many.
    """

    def __init__(self, bits: int = 64, *, vcpus: int = 1) -> None:
        self.bits, self.word = bits, bits // 8
        self.session = Session(Kernel(load_image(image(bits))), (backend,), memory=MEMORY, vcpus=vcpus)
        self.hv: Hypervisor = self.session.platform.hv  # type: ignore[attr-defined]
        self.cpu: Vcpu = self.session.machine.vcpus[0]
        self.labels = _labels(bits)
        self.session.run(max_ns=10**9)
        self._register_callbacks()
        self._start = self.session.machine.snapshot()

    def _register_callbacks(self) -> None:
        for kind, label in ((0, EVENT), (1, FAILSAFE), (2, SYSCALL), (5, SYSENTER)):
            if self.bits == 64:
                data = struct.pack("<HHIQ", kind, 1, 0, self.labels[f"h{label}"])
            else:
                data = struct.pack("<HHII", kind, 1, KERNEL_SELECTORS[32][0], self.labels[f"h{label}"])
            self.call(Hypercall.CALLBACK_OP, 0, self.put("data", data))
        selector = KERNEL_SELECTORS[self.bits][1]
        self.call(Hypercall.STACK_SWITCH, selector, self.va("entry_stack") + PAGE_SIZE)

    def restart(self) -> None:
        """Back to where the guest waited for the first time."""
        self.session.machine.restore(self._start)

    def close(self) -> None:
        """Free the machine."""
        self.session.close()

    # --- the guest's memory ----------------------------------------------------------------------------------------

    def va(self, page: str | int) -> int:
        """Virtual address of one of PAGES."""
        return address_of(self.bits, str(page))

    def mfn(self, page: str | int) -> int:
        """Machine frame of one of PAGES."""
        return self.hv.domain.p2m[(_START >> PAGE_SHIFT) + PAGES.index(str(page))]

    def l1e(self, page: str | int) -> int:
        """Machine address of the L1 entry that maps one of PAGES."""
        return guest_l1e(self.hv, 0, self.va(page)) or 0

    def entry(self, page: str | int) -> int:
        """That entry."""
        return self.hv.memory.u64(self.l1e(page))

    def table(self, level: int) -> int:
        """Machine frame of the table of a level that maps the kernel."""
        mfn = self.hv.space.root(0)
        for current in range(4 if self.bits == 64 else 3, level, -1):
            mfn = pte.frame_of(
                self.hv.memory.u64((mfn << PAGE_SHIFT) + (BASE[self.bits] >> (3 + 9 * current) & 511) * 8)
            )
        return mfn

    def put(self, page: str | int, data: bytes, offset: int = 0) -> int:
        """Write bytes into one of PAGES; gives their address."""
        self.hv.memory.write((self.mfn(page) << PAGE_SHIFT) + offset, data)
        return self.va(page) + offset

    def words(self, *values: int) -> bytes:
        """Unsigned longs."""
        mask = self.hv.abi.mask
        return struct.pack(f"<{len(values)}{'Q' if self.word == 8 else 'I'}", *(value & mask for value in values))

    def u64(self, address: int) -> int:
        """A machine word of memory."""
        return self.hv.memory.u64(address)

    # --- what it does ----------------------------------------------------------------------------------------------

    def call(self, number: int, *arguments: int) -> int:
        """Have the kernel make a hypercall: the result, as a signed number.

        Raises:
            AssertionError: it did not come back.
        """
        values = (number, *arguments, *[0] * 6)[:7]
        self.put("mailbox", self.words(*values), _ARGS)
        outcome = self._go(self.labels["call"], {})
        if outcome.kind != "done":
            raise AssertionError(f"hypercall {number} ended in {outcome}")
        result = self._mailbox(_ARGS)
        return result - (1 << self.bits) if result >> (self.bits - 1) else result

    def execute(self, code: str, *, max_ns: int = 10**9, **registers: int) -> GuestOutcome:
        """Have the kernel execute instructions; the label ``probe`` is where they start."""
        back = self.labels["done"] - self.va("probe")
        self.place(f"probe:\n{code}\n jmp probe + ({back})")
        return self._go(self.va("probe"), registers, max_ns)

    def execute_as_user(self, code: str, *, max_ns: int = 10**9, rflags: int = 0x202, **registers: int) -> GuestOutcome:
        """Have the kernel leave for user mode, to execute instructions there."""
        self._open_to_user("probe", "stack")
        if self.bits == 64:
            self.mmuext((15, self.table(4), 0))
        self.place(f"probe:\n{code}\n int {LEAVE:#x}")
        cs, ss = USER_SELECTORS[self.bits]
        top = self.va("stack") + PAGE_SIZE
        eip = self.va("probe")
        if self.bits == 64:
            names = ("rax", "r11", "rcx")
            frame = [*(registers.pop(name, 0) for name in names), 0, eip, cs, rflags, top, ss]
        else:
            frame = [registers.pop("eax", 0), eip, cs, rflags, top, ss]
        self.put("entry_stack", self.words(*frame), PAGE_SIZE // 2)
        stack = self.va("entry_stack") + PAGE_SIZE // 2
        return self._go(self.labels["leave"], {**registers, "rsp" if self.bits == 64 else "esp": stack}, max_ns)

    def bring_up(self, index: int, max_ns: int = 10**8) -> GuestOutcome:
        """Have the first vCPU bring another one up and then wait: how the other one's code ends."""
        first, second, third = _ARGUMENTS[self.bits][1:4]
        self.put(
            "kernel",
            assemble(
                f"mov eax, {int(Hypercall.VCPU_OP)}\n mov {first}, 1\n mov {second}, {index}\n xor {third}, {third}\n"
                f"{'syscall' if self.bits == 64 else 'int 0x82'}\n 1: pause\n jmp 1b",
                self.bits,
                self.va("kernel") + _WAITING,
            ),
            _WAITING,
        )
        return self._go(self.va("kernel") + _WAITING, {}, max_ns)

    def iret(self, *frame: int) -> GuestOutcome:
        """Have the kernel make the iret hypercall with these words on its stack."""
        self.put("stack", self.words(*frame), PAGE_SIZE // 2)
        stack = self.va("stack") + PAGE_SIZE // 2
        return self._go(self.labels["leave"], {"rsp" if self.bits == 64 else "esp": stack})

    def _open_to_user(self, *pages: str) -> None:
        for page in pages:
            self.update_va_mapping(self.va(page), self.entry(page) | pte.USER)

    def place(self, code: str) -> None:
        """Put code into the page ``probe``, for a way into it that is a test's own."""
        data = assemble(code, self.bits, self.va("probe"))
        self.put("probe", data)
        self.session.machine.invalidate([(self.va("probe"), self.va("probe") + PAGE_SIZE)])

    def _go(self, address: int, registers: Mapping[str, int], max_ns: int = 10**9) -> GuestOutcome:
        self.put("mailbox", bytes(16), _STATE)
        stack = {"rsp" if self.bits == 64 else "esp": self.va("stack") + PAGE_SIZE - 64}
        for name, value in {**stack, **registers}.items():
            self.cpu.set(name, value)
        self.cpu.rip = address
        return self._outcome(self.session.run(max_ns=max_ns))

    def _mailbox(self, offset: int, size: int = 0) -> int:
        size = size or self.word
        return int.from_bytes(self.hv.memory.read((self.mfn("mailbox") << PAGE_SHIFT) + offset, size), "little")

    def _outcome(self, stop: Stop) -> GuestOutcome:
        state = self._mailbox(_STATE, 4)
        if stop.reason != "poweroff" or not state:
            return GuestOutcome(stop.reason, detail=stop.detail)
        names = _REGISTERS[self.bits]
        registers = {name: self._mailbox(_SAVED + i * self.word) for i, name in enumerate(names)}
        if state == _DONE:
            return GuestOutcome("done", registers=registers)
        vector = self._mailbox(_VECTOR, 4)
        return self._trap(vector, registers)

    def _trap(self, vector: int, registers: Mapping[str, int]) -> GuestOutcome:
        """Read the frame that Xen pushed."""
        stack = registers["rsp" if self.bits == 64 else "esp"]
        coded = vector in WITH_ERROR_CODE
        if self.bits == 64:
            extra = 4 if vector == FAILSAFE else 0
            words = struct.unpack("<11Q", self.cpu.read_virtual(stack, 88))
            rest = words[2 + extra + coded :]
            error = words[2] if coded else 0
        else:
            words = struct.unpack("<8I", self.cpu.read_virtual(stack, 32))
            extra = 4 if vector == FAILSAFE else 0
            rest = words[extra + coded :]
            error = words[0] if coded else 0
        info = self.hv.domain.vcpus[0].info
        cr2 = int.from_bytes(self.hv.memory.read(info + self.hv.abi.cr2, self.word), "little")
        return GuestOutcome("trap", vector, error, rest[0], rest[1] & 0xFFFF, rest[2], cr2, registers=registers)

    # --- hypercalls by name ----------------------------------------------------------------------------------------

    def mmu_update(self, *updates: tuple[int, int], owner: int = 0x7FF0) -> int:
        """``mmu_update`` with (ptr, val) pairs."""
        data = b"".join(struct.pack("<QQ", ptr, val) for ptr, val in updates)
        return self.call(Hypercall.MMU_UPDATE, self.put("data", data), len(updates), 0, owner)

    def mmuext(self, *operations: tuple[int, int, int], owner: int = 0x7FF0) -> int:
        """``mmuext_op`` with (cmd, arg1, arg2) each."""
        data = b"".join(self.words(*operation) for operation in operations)
        return self.call(Hypercall.MMUEXT_OP, self.put("data", data), len(operations), 0, owner)

    def update_va_mapping(self, va: int, entry: int, flags: int = 2) -> int:
        """``update_va_mapping``."""
        halves = (entry,) if self.bits == 64 else (entry & 0xFFFF_FFFF, entry >> 32)
        return self.call(Hypercall.UPDATE_VA_MAPPING, va, *halves, flags)

    def protect(self, page: str | int) -> int:
        """Take the right to write one of PAGES away, so that its frame can become something else."""
        return self.update_va_mapping(self.va(page), self.entry(page) & ~pte.RW)

    def update_descriptor(self, address: int, descriptor: int) -> int:
        """``update_descriptor``."""
        if self.bits == 64:
            return self.call(Hypercall.UPDATE_DESCRIPTOR, address, descriptor)
        parts = (address & 0xFFFF_FFFF, address >> 32, descriptor & 0xFFFF_FFFF, descriptor >> 32)
        return self.call(Hypercall.UPDATE_DESCRIPTOR, *parts)

    def set_gdt(self, *frames: int, entries: int | None = None) -> int:
        """``set_gdt``."""
        count = 512 * len(frames) if entries is None else entries
        return self.call(Hypercall.SET_GDT, self.put("data", self.words(*frames)), count)

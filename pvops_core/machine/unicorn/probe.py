"""Where Unicorn keeps the parts of the CPU state that its interface does not reach.

The saved context is a copy of the library's own CPU structure. A small 64-bit guest is run through known states
(privilege level 0 and 3, three kinds of fault, a software interrupt); the words that took the expected values in each
of them are the ones looked for. A build of the library where exactly one place does not fit is refused.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import struct
from typing import TYPE_CHECKING

import attrs

from pvops_core.machine.unicorn import engine as uc

if TYPE_CHECKING:
    from collections.abc import Sequence

# Hidden flags of the CPU, as QEMU's target/i386/cpu.h numbers them.
HF_CPL = 3
HF_INHIBIT_IRQ = 1 << 3
HF_CS32 = 1 << 4
HF_SS32 = 1 << 5
HF_ADDSEG = 1 << 6
HF_LMA = 1 << 14
HF_CS64 = 1 << 15

SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
SEGMENT_STRIDE = 24
"""One cached segment: u32 selector, 4 bytes of padding, u64 base, u32 limit, u32 second word of the descriptor."""


@attrs.frozen
class ContextLayout:
    """Byte offsets into a saved context."""

    exception: int
    error_code: int
    software: int
    hidden_flags: int
    segments: int
    control: int
    """CR0, followed by CR1 to CR4, 8 bytes each."""

    def segment(self, name: str) -> int:
        """Offset of a segment register's cache."""
        return self.segments + SEGMENTS.index(name) * SEGMENT_STRIDE


_SIZE = 0x10000
_GDT, _CODE, _STACK = 0x4000, 0x5000, 0x6F00
_ROOT, _CR0 = 0x1000, 0x80010011  # CR0: PG, WP, ET, PE
_UNMAPPED, _SUPERVISOR = 0x200000, 0x7000
_KERNEL_CS, _KERNEL_SS, _USER_SS, _USER_CS = 0x08, 0x10, 0x1B, 0x23
# Null; code of 64 bits and data of level 0; data and code of level 3.
_DESCRIPTORS = (0, 0x00AF9A000000FFFF, 0x00CF93000000FFFF, 0x00CFF3000000FFFF, 0x00AFFA000000FFFF)

# At level 0: nop (hooked: the first look), lgdt-free far return to load CS, then iretq to level 3.
_KERNEL_CODE = bytes.fromhex("48cb9048cf")
# At level 3: four events. Each handler moves RIP on to the next.
_EVENTS: tuple[tuple[bytes, int, int, int], ...] = (
    (bytes.fromhex("880425") + struct.pack("<I", _UNMAPPED), 14, 6, 0),  # mov [unmapped], al
    (bytes.fromhex("8a0425") + struct.pack("<I", _SUPERVISOR), 14, 5, 0),  # mov al, [supervisor page]
    (bytes.fromhex("66b8f0008ed8"), 13, 0xF0, 0),  # mov ax, 0xf0; mov ds, ax: beyond the limit
    (bytes.fromhex("cd80"), 0x80, 0, 1),
)


def _scratch_memory() -> mmap.mmap:
    memory = mmap.mmap(-1, _SIZE)
    # Three tables, and below one that maps every page of this memory: present, writable, for level 3 but for one page.
    struct.pack_into("<Q", memory, 0x1000, 0x2007)
    struct.pack_into("<Q", memory, 0x2000, 0x3007)
    struct.pack_into("<Q", memory, 0x3000, 0x8007)
    for page in range(16):
        struct.pack_into("<Q", memory, 0x8000 + page * 8, page << 12 | (3 if page << 12 == _SUPERVISOR else 7))
    struct.pack_into("<5Q", memory, _GDT, *_DESCRIPTORS)
    memory[_CODE : _CODE + len(_KERNEL_CODE)] = _KERNEL_CODE
    user = _CODE + 0x100
    body = b"".join(event[0] for event in _EVENTS) + b"\xeb\xfe"
    memory[user : user + len(body)] = body
    frame = (_CODE + 2, _KERNEL_CS, user, _USER_CS, 2, _STACK, _USER_SS)
    struct.pack_into("<7Q", memory, _STACK - 56, *frame)
    return memory


def _observe() -> tuple[bytes, bytes, list[bytes]]:
    """Contexts at level 0, at level 3, and at each of the events."""
    memory = _scratch_memory()
    view = (ctypes.c_uint8 * _SIZE).from_buffer(memory)
    engine = uc.Engine(64, ctypes.addressof(view), _SIZE)
    context = uc.Context(engine)
    # After every event the whole context is kept: what is looked for is where a value is, in all of them.
    seen: list[bytes] = []

    def look() -> None:
        engine.save(context)
        seen.append(bytes(context.bytes))

    def on_code(_engine: int, _address: int, _size: int, _data: int) -> None:
        look()
        # At level 0 and at level 3: from here on the events follow.
        if len(seen) == 2:
            engine.stop()

    def on_interrupt(_engine: int, vector: int, _data: int) -> None:
        vectors.append(vector)
        look()
        engine.stop()

    user = _CODE + 0x100
    vectors: list[int] = []
    hooks = [engine.hook(uc.HOOK_CODE, uc.CODE_CALLBACK(on_code), at, at) for at in (_CODE + 2, user)]
    engine.hook(uc.HOOK_INTR, uc.INTR_CALLBACK(on_interrupt))
    registers = uc.REGISTER_IDS
    engine.write_table("gdtr", uc.TableRegister(0, _GDT, len(_DESCRIPTORS) * 8 - 1, 0))
    for name, value in (("cr4", 0x220), ("cr3", _ROOT), ("cr0", _CR0), ("rsp", _STACK - 56)):  # CR4: PAE, OSFXSR
        engine.write(registers[name], value)
    engine.start(_CODE)
    for hook in hooks:
        engine.unhook(hook)
    # A hook at an address holds code back that was translated before it.
    engine.flush_code()
    level3 = seen[-1]
    address = user
    for code, _, _, _ in _EVENTS:
        context.bytes[:] = level3
        engine.restore(context)
        engine.start(address)
        address += len(code)
    context.free()
    engine.close()
    del view
    memory.close()
    # A build that runs this guest otherwise has other places, too.
    if vectors != [event[1] for event in _EVENTS] or len(seen) != 2 + len(_EVENTS):
        raise uc.unknown_build(f"the probe saw the exceptions {vectors}")
    return seen[0], seen[1], seen[2:]


def _words(context: bytes) -> memoryview:
    return memoryview(context[: len(context) & ~3]).cast("I")


def _find(name: str, contexts: Sequence[bytes], values: Sequence[int]) -> int:
    """The one offset at which the contexts hold these 32-bit values."""
    rows = zip(*(_words(context) for context in contexts), strict=True)
    found = [at * 4 for at, words in enumerate(rows) if words == tuple(values)]
    if len(found) != 1:
        raise uc.unknown_build(f"{len(found)} words of its CPU state look like the {name}, not one")
    return found[0]


@functools.cache
def context_layout() -> ContextLayout:
    """Find the layout once in a process.

    Raises:
        HostError: the library is not one whose CPU state looks as expected.
    """
    kernel, user, events = _observe()
    # The bits of level and mode are what differs, and nothing else in the context does.
    always = HF_CS32 | HF_CS64 | HF_LMA
    hidden = [
        at
        for at, (low, high) in enumerate(zip(_words(kernel), _words(user), strict=True))
        if low & always == high & always == always and low & HF_CPL == 0 and high & HF_CPL == HF_CPL
    ]
    if len(hidden) != 1:
        raise uc.unknown_build(f"{len(hidden)} words of its CPU state look like the hidden flags, not one")
    code_segment = _find("CS selector", (kernel, user), (_KERNEL_CS, _USER_CS))
    stack_segment = _find("SS selector", (user,), (_USER_SS,))
    # Base, limit and flags in QEMU's order, from which all of a segment is read and written.
    for context, at, descriptor in ((user, code_segment, _DESCRIPTORS[4]), (user, stack_segment, _DESCRIPTORS[3])):
        base, limit, second = struct.unpack_from("<QII", context, at + 8)
        if (base, limit, second | 0x100) != (0, 0xFFFFFFFF, descriptor >> 32 | 0x100):
            raise uc.unknown_build("cached segments do not look as expected")
    if stack_segment != code_segment + SEGMENT_STRIDE:
        raise uc.unknown_build("segment registers do not follow each other")
    return ContextLayout(
        exception=_find("exception word", (user, *events), (0xFFFFFFFF, 14, 14, 13, 0xFFFFFFFF)),
        error_code=_find("error code", events, [event[2] for event in _EVENTS]),
        software=_find("software interrupt word", events, [event[3] for event in _EVENTS]),
        hidden_flags=hidden[0] * 4,
        segments=code_segment - SEGMENT_STRIDE,
        control=_control(user),
    )


def _control(context: bytes) -> int:
    """Offset of the control registers: CR0, then 8 bytes each."""
    numbers = memoryview(context[: len(context) & ~7]).cast("Q")
    found = [at * 8 for at in range(len(numbers) - 4) if numbers[at] == _CR0 and numbers[at + 3] == _ROOT]
    if len(found) != 1:
        raise uc.unknown_build(f"{len(found)} places of its CPU state look like the control registers, not one")
    return found[0]

"""The code that runs programs one after another on a bare processor, and tells by the serial port what came of each.

It comes from reset to protected mode, and to long mode where programs are of 64 bits. With 32 bits a program is a task,
and each vector's gate leads to a task of its own: so a fault touches no stack of the program's, and all registers are
in its task-state segment. With 64 bits all vectors have a stack of their own (IST).
Sources: Intel SDM volume 3, 9.1 (reset), 9.8.5 (to long mode), 7.2 to 7.3 (tasks), 6.14.5 (IST); 16550A data sheet.
"""

from __future__ import annotations

import struct
from typing import Final

from pvops_core.machine import MachineKind
from pvops_core.testing.assembly import assemble
from tests.machine.independent import layout as at

MARK, LAST, NOTHING = 0x5051524D, 0x5051524E, 0xFFFFFFFF
"""Words of what is told: before each program's end, at the very end, and after the last word of memory."""
WITH_ERROR: Final = frozenset({8, 10, 11, 12, 13, 14, 17})
STUB_SIZE: Final = 32
COUNT, INDEX, VECTOR, ERROR, ADDRESS, GDTR, IDTR, NO_IDT, PROGRAM, REGISTERS = (
    at.STATE + 16 * index for index in range(10)
)
ENTRIES, PROTECT, BEGIN = 0x000, 0x200, 0x300
"""In a program's first page: entries (address, low, high), CR0.WP, and its task-state segment, or with 64 bits its
return frame and then its registers."""
GDT_SIZE: Final = at.FAULT_TASKS + 32 * 8

_SERIAL: Final = """
    mov dx, 0x3fb; mov al, 0x80; out dx, al
    mov dx, 0x3f8; mov al, 1; out dx, al
    mov dx, 0x3f9; mov al, 0; out dx, al
    mov dx, 0x3fb; mov al, 3; out dx, al
"""
_EMIT: Final = """
emit:
    push {c}; push {d}; push {a}
    mov ecx, 4
emit_byte:
    mov edx, 0x3fd
emit_wait:
    in al, dx
    test al, 0x20
    jz emit_wait
    mov edx, 0x3f8
    mov eax, [{sp}]
    out dx, al
    shr dword ptr [{sp}], 8
    dec ecx
    jnz emit_byte
    pop {a}; pop {d}; pop {c}
    ret
"""
_NEXT: Final = f"""
next:
    mov eax, [{INDEX}]
    cmp eax, [{COUNT}]
    jae done
    imul ebx, eax, {at.PROGRAM_SIZE}
    add ebx, {at.PROGRAMS - (1 << 32)}
    cld
    lea esi, [{{b}} + {at.PAGE}]
    mov edi, {at.FRAMES_AT}
    mov ecx, {at.WORDS}
    rep movsd
    lea esi, [{{b}} + {ENTRIES}]
    mov ecx, 12
entry:
    mov edi, [{{si}}]
    mov eax, [{{si}} + 4]
    mov [{{di}}], eax
    {{high}}
    add esi, 12
    dec ecx
    jnz entry
    mov {{a}}, cr0
    and eax, 0xfffeffff
    or eax, [{{b}} + {PROTECT}]
    mov cr0, {{a}}
"""
_HIGH: Final = "mov eax, [{si} + 8]; mov [{di} + 4], eax"
_REPORT: Final = f"""
    mov eax, {MARK}; call emit
    mov eax, [{INDEX}]; call emit
    mov eax, [{VECTOR}]; call emit
    mov eax, [{ERROR}]; call emit
"""
_MEMORY: Final = f"""
    mov ecx, 0
    lea esi, [{{b}} + {at.PAGE}]
compare:
    mov eax, [{{c}} * 4 + {at.FRAMES_AT}]
    cmp eax, [{{si}} + {{c}} * 4]
    je same
    mov edx, eax
    mov eax, ecx; call emit
    mov eax, edx; call emit
same:
    inc ecx
    cmp ecx, {at.WORDS}
    jb compare
    mov eax, {NOTHING}; call emit
    inc dword ptr [{INDEX}]
    jmp next
done:
    mov eax, {LAST}; call emit
    mov edx, 0x3fd
drain:
    in al, dx
    test al, 0x40
    jz drain
    lidt [{NO_IDT}]
    ud2
"""
_NAMES: Final = {"a": "ax", "b": "bx", "c": "cx", "d": "dx", "si": "si", "di": "di", "sp": "sp"}
_NAMES_32, _NAMES_64 = ({short: letter + name for short, name in _NAMES.items()} for letter in "er")


def reset_code() -> bytes:
    """The last 8 KiB of the ROM: from reset to protected mode, and the harness's memory from ROM to its place."""
    table, start = at.RESET_CODE + 0x100, at.RESET_CODE + 0x200
    code = bytes.fromhex("fa e492 0c02 24fe e692")  # cli; open the gate of address line 20
    code += bytes.fromhex("2e660f0116") + struct.pack("<H", table & 0xFFFF)  # lgdt cs:[table]
    code += bytes.fromhex("0f20c0 0c01 0f22c0 66ea") + struct.pack("<IH", start, at.KERNEL_CODE)  # set CR0.PE; go there
    flat = struct.pack("<HIHQQQ", 0x17, table + 8, 0, 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)
    copy = f"""
    mov ax, {at.KERNEL_DATA}
    mov ds, ax; mov es, ax; mov ss, ax
    mov esi, {at.ROM}; mov edi, {at.BEGIN}; mov ecx, {(at.END - at.BEGIN) // 4}
    cld
    rep movsd
    lgdt [{GDTR}]
    .byte 0xea; .long {at.BOOT}; .word {at.BOOT_CODE}
    """
    image = bytearray(b"\xff" * ((1 << 32) - at.RESET_CODE))
    for place, part in ((0, code), (0x100, flat), (0x200, assemble(copy, 32, start))):
        image[place : place + len(part)] = part
    image[-16:-11] = b"\xea" + struct.pack("<HH", at.RESET_CODE & 0xFFFF, 0xF000)
    return bytes(image)


def boot(kind: MachineKind, own_root: int) -> bytes:
    """From protected mode to the harness, to lie at ``layout.BOOT``."""
    extended = {MachineKind.I386: None, MachineKind.PAE: 0x800, MachineKind.X86_64: 0x900}[kind]
    text = f"""
    mov ax, {at.KERNEL_DATA}
    mov ds, ax; mov es, ax; mov ss, ax
    mov esp, {at.STACK_TOP}
    lidt [{IDTR}]
    mov eax, {0x10 if kind is MachineKind.I386 else 0x20}
    mov cr4, eax
    mov eax, {own_root}
    mov cr3, eax
    {"" if extended is None else f"mov ecx, 0xc0000080; mov eax, {extended}; mov edx, 0; wrmsr"}
    mov eax, 0x80010033
    mov cr0, eax
    .byte 0xea; .long {at.CODE + 32 * STUB_SIZE}; .word {at.KERNEL_CODE}
    """
    return assemble(text, 32, at.BOOT)


def harness(kind: MachineKind, own_root: int, program_root: int) -> bytes:
    """Where the vectors' gates lead, and what runs programs; to lie at ``layout.CODE``."""
    if kind is MachineKind.X86_64:
        return assemble(_stubs_64() + _harness_64(own_root, program_root), 64, at.CODE)
    return assemble(_stubs_32() + _harness_32(kind), 32, at.CODE)


def _stubs_32() -> str:
    """Each is a task's code, which goes on behind its jump when the vector comes again."""
    return "".join(
        f".balign {STUB_SIZE}; again{vector}: {'' if vector in WITH_ERROR else 'push 0;'} pop dword ptr [{ERROR}];"
        f"mov dword ptr [{VECTOR}], {vector}; .byte 0xea; .long 0; .word {at.OWN_TASK}; jmp again{vector}\n"
        for vector in range(32)
    )


def _stubs_64() -> str:
    return "".join(
        f".balign {STUB_SIZE}; {'' if vector in WITH_ERROR else 'push 0;'} push {vector}; jmp fault\n"
        for vector in range(32)
    )


def _harness_32(kind: MachineKind) -> str:
    names = _NAMES_32
    saved = at.TASKS + 0x80
    told = [saved + 0x20, saved + 0x24, *range(saved + 0x28, saved + 0x48, 4)]
    return "\n".join([
        f".balign {STUB_SIZE}", f"mov ax, {at.OWN_TASK}; ltr ax", _SERIAL,
        _NEXT.format(high="" if kind is MachineKind.I386 else _HIGH.format(**names), **names),
        f"lea esi, [ebx + {BEGIN}]; mov edi, {saved}; mov ecx, 26; rep movsd",
        f"mov byte ptr [{at.GDT + at.PROGRAM_TASK + 5}], 0x89",  # not busy
        f".byte 0xea; .long 0; .word {at.PROGRAM_TASK}",
        _REPORT, "mov eax, cr2; call emit",
        *(f"mov eax, [{place}]; call emit" for place in told),
        _MEMORY.format(**names), _EMIT.format(**names),
    ])  # fmt: skip


_ORDER: Final = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")


def _harness_64(own_root: int, program_root: int) -> str:
    names = _NAMES_64
    places = {name: REGISTERS + 8 * index for index, name in enumerate(_ORDER)}
    rip, flags = REGISTERS + 0x40, REGISTERS + 0x48
    frame = at.STATE + 0x200
    both = "mov eax, [{0}]; call emit; mov eax, [{0} + 4]; call emit"
    return "\n".join([
        f".balign {STUB_SIZE}", f"mov ax, {at.LONG_TASK}; ltr ax", _SERIAL,
        _NEXT.format(high=_HIGH.format(**names), **names),
        f"lea rsi, [rbx + {BEGIN}]; mov rdi, {frame}; mov ecx, 26; rep movsd",
        f"mov [{PROGRAM}], rbx",
        f"mov eax, {program_root}; mov cr3, rax",
        *(f"mov {name}, [{frame + 40 + 8 * index}]" for index, name in enumerate(_ORDER) if name != "rsp"),
        f"mov rsp, {frame}; iretq",
        "fault:",
        *(f"mov [{place}], {name}" for name, place in places.items() if name != "rsp"),
        f"pop rax; mov [{VECTOR}], rax; pop rax; mov [{ERROR}], rax",
        f"pop rax; mov [{rip}], rax; pop rax; pop rax; mov [{flags}], rax; pop rax; mov [{places['rsp']}], rax",
        f"mov eax, {own_root}; mov cr3, rax; mov rsp, {at.STACK_TOP}; mov rbx, [{PROGRAM}]",
        _REPORT, f"mov rax, cr2; mov [{ADDRESS}], rax", both.format(ADDRESS),
        *(both.format(place) for place in (rip, flags, *places.values())),
        _MEMORY.format(**names), _EMIT.format(**names),
    ])  # fmt: skip

"""The registers that a debugger is told of: their order, widths and types, and the document that says so.

Names, and which features they belong to, are the GDB manual's ("i386 Features") and, for system registers, those of
QEMU's gdb-xml/i386-64bit.xml; the bits of flags are the Intel SDM's (volume 1, 3.4.3; volume 3, 2.2.1 and 2.5).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Final

import attrs

_NAMES64: Final = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)))
_NAMES32: Final = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
SEGMENTS: Final = ("cs", "ss", "ds", "es", "fs", "gs")
X87: Final = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
_CORE, _SSE = "org.gnu.gdb.i386.core", "org.gnu.gdb.i386.sse"
_BASES, _SYSTEM = "org.gnu.gdb.i386.segments", "org.pvops.system"
_FLAGS: Final = {
    "i386_eflags": (
        4,
        "CF 0,@ 1,PF 2,AF 4,ZF 6,SF 7,TF 8,IF 9,DF 10,OF 11,NT 14,RF 16,VM 17,AC 18,VIF 19,VIP 20,ID 21",
    ),
    "cr0": (None, "PE 0,MP 1,EM 2,TS 3,ET 4,NE 5,WP 16,AM 18,NW 29,CD 30,PG 31"),
    "cr4": (
        None,
        (
            "VME 0,PVI 1,TSD 2,DE 3,PSE 4,PAE 5,MCE 6,PGE 7,PCE 8,OSFXSR 9,OSXMMEXCPT 10,UMIP 11,VMXE 13,FSGSBASE 16,"
            "PCIDE 17,OSXSAVE 18,SMEP 20,SMAP 21,PKE 22"
        ),
    ),
    "efer": (None, "SCE 0,LME 8,LMA 10,NXE 11"),
}
"""Bytes (None: of the machine's word) and bits of each type; ``@`` is a bit without a name."""


@attrs.frozen
class Register:
    """A register as it is sent.

    Attributes:
        name: gdb's name.
        bits: width.
        type: gdb's type.
        feature: what it belongs to.
    """

    name: str
    bits: int
    type: str
    feature: str

    @property
    def size(self) -> int:
        """Bytes."""
        return self.bits // 8


@functools.cache
def registers(bits: int) -> tuple[Register, ...]:
    """The registers of a machine of 32 or 64 bits, in the order of their numbers."""
    return tuple(_all(bits))


def _all(bits: int) -> Iterator[Register]:
    code = {"rip": "code_ptr", "eip": "code_ptr", **dict.fromkeys(("rbp", "rsp", "ebp", "esp"), "data_ptr")}
    wide = f"int{bits}"
    for name in (*_NAMES64, "rip") if bits == 64 else (*_NAMES32, "eip"):
        yield Register(name, bits, code.get(name, wide), _CORE)
    yield Register("eflags", 32, "i386_eflags", _CORE)
    yield from (Register(name, 32, "int32", _CORE) for name in SEGMENTS)
    yield from (Register(f"st{number}", 80, "i387_ext", _CORE) for number in range(8))
    yield from (Register(name, 32, "int", _CORE) for name in X87)
    yield from (Register(f"xmm{number}", 128, "vec128", _SSE) for number in range(16 if bits == 64 else 8))
    yield Register("mxcsr", 32, "int", _SSE)
    yield from (Register(name, bits, wide, _BASES if bits == 64 else _SYSTEM) for name in ("fs_base", "gs_base"))
    if bits == 64:
        yield Register("k_gs_base", bits, wide, _SYSTEM)
    for name in ("cr0", "cr2", "cr3", "cr4", "efer"):
        yield Register(name, bits, name if name in _FLAGS else wide, _SYSTEM)


_VECTOR: Final = """\
<vector id="v4f" type="ieee_single" count="4"/><vector id="v2d" type="ieee_double" count="2"/>
<vector id="v16i8" type="int8" count="16"/><vector id="v8i16" type="int16" count="8"/>
<vector id="v4i32" type="int32" count="4"/><vector id="v2i64" type="int64" count="2"/>
<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/>
<field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/>
<field name="v2_int64" type="v2i64"/><field name="uint128" type="uint128"/></union>
"""


@functools.cache
def target_xml(bits: int) -> bytes:
    """The target description (GDB manual, "Target Descriptions")."""
    parts = [
        '<?xml version="1.0"?>\n<!DOCTYPE target SYSTEM "gdb-target.dtd">\n<target version="1.0">\n',
        f"<architecture>{'i386:x86-64' if bits == 64 else 'i386'}</architecture>\n",
    ]
    there = registers(bits)
    for feature in dict.fromkeys(each.feature for each in there):
        own = [each for each in there if each.feature == feature]
        parts.append(f'<feature name="{feature}">\n')
        parts += [_VECTOR] if feature == _SSE else []
        parts += [_flags(name, bits) for name in _FLAGS if any(each.type == name for each in own)]
        parts += [f'<reg name="{each.name}" bitsize="{each.bits}" type="{each.type}"/>\n' for each in own]
        parts.append("</feature>\n")
    return "".join([*parts, "</target>\n"]).encode()


def _flags(name: str, bits: int) -> str:
    size, text = _FLAGS[name]
    fields = (each.split() for each in text.split(","))
    told = "".join(
        f'<field name="{"" if field == "@" else field}" start="{bit}" end="{bit}"/>' for field, bit in fields
    )
    return f'<flags id="{name}" size="{size or bits // 8}">{told}</flags>\n'

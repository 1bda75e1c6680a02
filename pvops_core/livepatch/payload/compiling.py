"""Makes a payload of C or assembly: compiled, given its tables, and linked into one relocatable object.

Needs ``cc`` and ``ld`` (or what CC and LD name); everything else in pvops does without them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import UsageError
from pvops_core.guest.symbols import find_symbol, plain_name
from pvops_core.livepatch.payload.builder import expectation
from pvops_core.livepatch.payload.model import OPAQUE_SIZE, PAYLOAD_VERSION
from pvops_core.livepatch.payload.objects import SHN_LORESERVE, SHN_UNDEF, read_object

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.kinds import MachineKind

INCLUDE = Path(__file__).parent.parent / "include"
# A payload is relocated, not loaded at any address, so position-independent code gains nothing.
_PLAIN = ["-fno-pic", "-fno-pie"]
_COMMON = [
    *_PLAIN,
    # Common symbols have no section, stack protectors want a canary of the guest's, and endbr64 would stand before
    # jumps.
    *("-ffreestanding", "-fno-common", "-fno-stack-protector", "-fcf-protection=none"),
    # Unwind tables are never read; SSE and MMX would spoil the FPU state of whatever runs.
    *("-fno-asynchronous-unwind-tables", "-fno-strict-aliasing", "-mno-sse", "-mno-mmx", "-msoft-float"),
    *("-O2", "-Wall"),
]
# As Linux is compiled: the top 2 GiB, no red zone below the stack, three arguments in registers.
_FLAGS = {
    64: ["-m64", "-mcmodel=kernel", "-mno-red-zone"],
    32: ["-m32", "-march=i686", "-mregparm=3"],
}
_EMULATION = {64: "elf_x86_64", 32: "elf_i386"}
_SECONDS = 60
SUFFIXES = (".c", ".S", ".s")


@attrs.frozen
class Replacement:
    """One function to replace: by a function of the source, or by nops where ``new`` is empty.

    ``expected`` are bytes that it must begin with; empty where nothing is expected. ``old`` may say which of several
    functions of a name it is; ``address`` is then where that is, and otherwise 0: it is looked up by name when loaded.
    """

    old: str
    new: str
    expected: bytes = b""
    address: int = 0


def expecting(replacements: Sequence[Replacement], texts: Iterable[str]) -> list[Replacement]:
    """The replacements with what ``old=hex`` texts say of the bytes that old functions must begin with.

    Raises:
        UsageError: a text is none, or speaks of a function that is not replaced.
    """
    found = {each.old: each for each in replacements}
    for text in texts:
        old, _, digits = text.partition("=")
        try:
            expected = bytes.fromhex(digits)
        except ValueError as error:
            raise UsageError(f"{text!r}: write old=hex") from error
        if old not in found:
            raise UsageError(f"{text!r}: {old!r} is not among the functions to replace")
        if not 1 <= len(expected) <= OPAQUE_SIZE:
            raise UsageError(f"{text!r}: 1 to {OPAQUE_SIZE} bytes can be expected")
        found[old] = attrs.evolve(found[old], expected=expected)
    return list(found.values())


def parse_replacement(text: str) -> Replacement:
    """``old=new``; ``old`` alone is replaced by the function of that name with ``new_`` before it; ``old=`` by nops."""
    old, sign, new = text.partition("=")
    if not old:
        raise UsageError(f"{text!r} names no function; write old=new")
    return Replacement(old, new if sign else f"new_{plain_name(old)}")


def located(image: KernelImage, replacement: Replacement) -> Replacement:
    """The replacement with the address of the function that its name says is meant.

    Raises:
        UsageError: there is no such function, or there are several and the name does not say which.
    """
    address = find_symbol(image, replacement.old)
    # No address where the name alone says which function is meant: the file then fits other builds too.
    return replacement if replacement.old in image.symbols else attrs.evolve(replacement, address=address)


def size_in(image: KernelImage, symbol: str) -> int:
    """Bytes from a function of a kernel to the next symbol: no less than it has.

    Raises:
        UsageError: there is no such function, or there are several and the name does not say which.
    """
    address = find_symbol(image, symbol)
    section = image.section_at(address)
    end = section.address + section.size if section is not None else address
    # The last symbol of a section reaches to the section's end.
    addresses = image.symbol_table.addresses
    following = bisect_right(addresses, address)
    return min(addresses[following], end) - address if following < len(addresses) else end - address


def build_payload(
    source: Path,
    replacements: Sequence[Replacement],
    sizes: Mapping[str, int],
    kind: MachineKind,
    *,
    depends: bytes,
    host: bytes | None,
) -> bytes:
    """The payload file; its build-id is the hash of what was compiled.

    Args:
        source: a C or assembly file.
        replacements: what it replaces.
        sizes: bytes of each old function.
        kind: the guest's machine.
        depends: build-id of what it is to be applied on.
        host: the guest's build-id; None to leave it out, which no guest takes.

    Raises:
        UsageError: there is no compiler or linker, the source does not compile, or lacks a function.
    """
    compiler, linker = _tool("CC", "cc"), _tool("LD", "ld")
    _check_source(source)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compiled, table, tables, out = (folder / part for part in ("code.o", "tables.S", "tables.o", "payload"))
        flags = [*_COMMON, *_FLAGS[kind.bits], "-I", str(INCLUDE)]
        _run([*compiler, *flags, "-c", str(source.absolute()), "-o", str(compiled)], source)
        data = compiled.read_bytes()
        # Of what was compiled: the same source for another guest must have another build-id.
        own = hashlib.sha1(data + depends + (host or b""), usedforsecurity=False).digest()
        table.write_text(_tables(replacements, sizes, _sizes(data, source, kind), kind, (own, depends, host)))
        # The tables know sizes, so they come after the code.
        _run([*compiler, *_PLAIN, *_FLAGS[kind.bits], "-c", str(table), "-o", str(tables)], source)
        _run([*linker, "-m", _EMULATION[kind.bits], "-r", "-o", str(out), str(compiled), str(tables)], source)
        return out.read_bytes()


def _check_source(source: Path) -> None:
    """Refuse what a compiler would take for something else: it tells sources from objects by their names."""
    if source.suffix not in SUFFIXES:
        raise UsageError(f"{source}: is not named as C or assembly is: {', '.join(SUFFIXES)}")
    try:
        there = source.is_file()
    except (OSError, ValueError) as error:  # no name that a file can have
        raise UsageError(f"{source}: {error}") from error
    if not there:
        raise UsageError(f"{source}: no such file")


def _tool(variable: str, name: str) -> list[str]:
    words = os.environ.get(variable, name).split()
    if not words or shutil.which(words[0]) is None:
        raise UsageError(
            f"{' '.join(words) or variable} is not installed: building a payload from source needs a C compiler and "
            f"linker ({variable} names another one); the Python builder in "
            "pvops_core.livepatch.payload.builder needs none"
        )
    return words


def _run(command: list[str], source: Path) -> None:
    try:
        # A compiler that hangs must not hang the caller.
        done = subprocess.run(  # noqa: S603 - the command is ours
            command, capture_output=True, text=True, check=False, timeout=_SECONDS, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{source}: {error}") from error
    if done.returncode:
        raise UsageError(f"{source}: {Path(command[0]).name} failed:\n{done.stderr.strip()}")


def _sizes(data: bytes, source: Path, kind: MachineKind) -> dict[str, int]:
    item = read_object(data, str(source), kind)
    # Of those with a section of their own.
    return {symbol.name: symbol.size for symbol in item.symbols if SHN_UNDEF < symbol.section < SHN_LORESERVE}


def _tables(
    replacements: Sequence[Replacement],
    old_sizes: Mapping[str, int],
    new_sizes: Mapping[str, int],
    kind: MachineKind,
    ids: tuple[bytes, bytes, bytes | None],
) -> str:
    """Assembly source of the sections that say what is to be done."""
    word = ".quad" if kind.bits == 64 else ".long"
    lines = []
    for number, each in enumerate(replacements):
        if each.new and each.new not in new_sizes:
            raise UsageError(f"the source defines no function {each.new}, which is to replace {each.old}")
        # Nops: as many as can be saved, and less than the function.
        size = new_sizes[each.new] if each.new else min(31, old_sizes[each.old] - 1)
        lines += [
            '.section .rodata.livepatch, "a"',
            f'.Lname{number}: .asciz "{plain_name(each.old)}"',
            '.section .livepatch.funcs, "a"',
            f"{word} .Lname{number}, {each.new or 0}, {each.address:#x}",
            f".long {size}, {old_sizes[each.old]}",
            f".byte {PAYLOAD_VERSION}",
            # 39 bytes of padding up to the expectation (struct livepatch_func).
            ".zero 39",
            f".byte {', '.join(str(byte) for byte in expectation(each.expected))}",
        ]
    # Without a host's build-id the section is left out, to make payloads that Xen refuses.
    for section, value in zip((".note.gnu.build-id", ".livepatch.depends", ".livepatch.xen_depends"), ids, strict=True):
        if value is None:
            continue
        lines += [
            f'.section {section}, "a", @note',
            ".balign 4",
            f".long 4, {len(value)}, 3",
            '.asciz "GNU"',
            f".byte {', '.join(str(byte) for byte in value)}",
            ".balign 4",
        ]
    # Or ld warns of an executable stack.
    return "\n".join([*lines, '.section .note.GNU-stack, "", @progbits', ""])

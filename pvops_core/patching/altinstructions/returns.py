"""Returns and indirect branches: what the kernel makes of them before it follows alternatives.

objtool lists them in ``.return_sites`` and ``.retpoline_sites``, as distances of 32 bits from each word itself. Most
lie outside of alternatives, but some in the places that alternatives replace, or in replacements.
Source: ``apply_returns`` and ``apply_retpolines``, arch/x86/kernel/alternative.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pvops_core.patching.altinstructions.capabilities import (
    CALL_DEPTH,
    RETHUNK,
    RETPOLINE,
    RETPOLINE_LFENCE,
    SRSO,
    SRSO_ALIAS,
    UNRET,
    feature_names,
)
from pvops_core.patching.code.relocation import BRANCH_SIZE, INT3, JUMP
from pvops_core.patching.text import Text, executable_sections, holders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvops_core.images import KernelImage
    from pvops_core.patching.code.padding import Rewriting

RETURNS: Final = ".return_sites"
RETPOLINES: Final = ".retpoline_sites"
RETURN_THUNK: Final = "__x86_return_thunk"
INDIRECT_THUNKS: Final = "__x86_indirect_thunk_array"
THUNK_SIZE: Final = 32
"""RETPOLINE_THUNK_SIZE: bytes from one register's thunk to the next."""

LONGEST: Final = 7
"""Bytes of the longest of these branches: one with a prefix before it and a condition in it."""

RETURN: Final = 0xC3
LFENCE: Final = b"\x0f\xae\xe8"

THUNKS: Final = (
    (SRSO_ALIAS, "srso_alias_return_thunk"),
    (SRSO, "srso_return_thunk"),
    (CALL_DEPTH, "call_depth_return_thunk"),
    (UNRET, "retbleed_return_thunk"),
)
"""Where returns are led to, by the feature that arch/x86/kernel/cpu/bugs.c forces with it; its last choice first."""


ITS_THUNK: Final = "its_return_thunk"
SAFE_HALF: Final = 0x20
"""A CPU with the bug ITS mispredicts only branches in the lower half of a cache line."""


def apply_returns(image: KernelImage, text: Text, features: frozenset[int]) -> int:
    """Make of every ``jmp __x86_return_thunk`` a return, or a jump to the thunk of the CPU; the number changed."""
    common = image.symbols.get(RETURN_THUNK)
    thunk = _return_thunk(image, features)
    aligned = thunk is not None and thunk == image.symbols.get(ITS_THUNK)
    changed = 0
    for address in sites(image, RETURNS, BRANCH_SIZE):
        code = text.read(address, BRANCH_SIZE)
        # Only a jump to the common thunk is a return: ``apply_returns`` leaves others, with a warning.
        if code[0] != JUMP or branch_target(address, code) != common:
            continue
        if thunk is None or (aligned and address & SAFE_HALF):
            # int3 behind it, against speculation that goes straight on
            made = bytes([RETURN]).ljust(BRANCH_SIZE, bytes([INT3]))
        else:
            made = _branch(address, thunk)
        text.write(address, made)
        changed += made != code
    return changed


def _return_thunk(image: KernelImage, features: frozenset[int]) -> int | None:
    """The thunk that returns are led to; None where they return by themselves."""
    # ``patch_return`` asks for this feature before it leads a return anywhere.
    if RETHUNK not in features:
        return None
    names = [name for feature, name in THUNKS if feature in features]
    if _has_its(image, features):
        names.append(ITS_THUNK)
    return next((image.symbols[name] for name in (*names, RETURN_THUNK) if name in image.symbols), None)


def _has_its(image: KernelImage, features: frozenset[int]) -> bool:
    return any(name == "bug:its" and number in features for number, name in feature_names(image).items())


def needs_trampolines(image: KernelImage, features: frozenset[int]) -> bool:
    """Whether the kernel leads indirect branches to memory that it allocates: for ITS, and without retpolines."""
    # With plain retpolines nothing is inlined; with lfence ones the branch itself is.
    retpolines = RETPOLINE in features and RETPOLINE_LFENCE not in features
    return not retpolines and RETHUNK in features and _has_its(image, features)


def apply_retpolines(image: KernelImage, text: Text, features: frozenset[int], padding: Rewriting) -> int:
    """Make of every branch to an indirect thunk the branch itself, where the CPU needs no retpolines; how many changed.

    Those that stay with CALL_DEPTH are led to other thunks by the kernel; that is not followed.
    """
    thunks = image.symbols.get(INDIRECT_THUNKS)
    if thunks is None or (RETPOLINE in features and RETPOLINE_LFENCE not in features):
        return 0
    changed = 0
    for address in sites(image, RETPOLINES, BRANCH_SIZE):
        code = text.read(address, LONGEST)
        made = _direct(address, code, thunks, lfence=RETPOLINE_LFENCE in features)
        if made is not None:
            text.write(address, padding.optimize(made))
            changed += 1
    return changed


def sites(image: KernelImage, section: str, length: int) -> Iterator[int]:
    """The addresses in a section of distances; those that are not in text are left out: a kernel warns and goes on."""
    header, data = image.section(section), image.section_bytes(section)
    # A kernel built without objtool has no such section, and nothing to do.
    if header is None or not data or len(data) % 4:
        return
    here = np.uint64(header.address) + np.arange(0, len(data), 4, dtype=np.uint64)
    mask = np.uint64((1 << 8 * image.pointer_size) - 1)
    addresses = here + np.frombuffer(data, "<i4").astype(np.int64).astype(np.uint64) & mask
    inside = holders(executable_sections(image), addresses, np.full(len(addresses), length, np.uint64)) >= 0
    yield from addresses[inside].tolist()


def branch_target(address: int, code: bytes) -> int:
    """Where a call or jump of five bytes leads."""
    return address + BRANCH_SIZE + int.from_bytes(code[1:BRANCH_SIZE], "little", signed=True)


def _branch(address: int, target: int) -> bytes:
    return bytes([JUMP]) + (target - address - BRANCH_SIZE).to_bytes(BRANCH_SIZE - 1, "little", signed=True)


def _direct(address: int, code: bytes, thunks: int, *, lfence: bool) -> bytes | None:
    """What ``patch_retpoline`` writes in place of a call, jump or conditional jump; None for anything else."""
    start = 1 if code[0] == 0x2E else 0  # cs call and cs jmp leave room for REX
    opcode = code[start]
    # 0f 80 to 0f 8f are jcc rel32, the condition in the low bits, of which the lowest turns it round (SDM volume 2,
    # B.1.4.7).
    condition = code[start + 1] & 0xF if opcode == 0x0F and code[start + 1] & 0xF0 == 0x80 else None
    length = start + (BRANCH_SIZE if condition is None else BRANCH_SIZE + 1)
    if (condition is None and opcode not in {0xE8, JUMP}) or len(code) < length:
        return None
    distance = int.from_bytes(code[length - 4 : length], "little", signed=True)
    # Thunks of one size stand in the order of register numbers (arch/x86/lib/retpoline.S).
    register, odd = divmod(address + length + distance - thunks, THUNK_SIZE)
    if odd or not 0 <= register < 16:
        return None
    # The opposite condition jumps over what is made
    head = b"" if condition is None else bytes([0x70 | condition ^ 1, length - 2])
    call = opcode == 0xE8
    # ff /2 calls, ff /4 jumps through a register; r8 to r15 take REX.B.
    branch = (b"\x41" if register >= 8 else b"") + bytes([0xFF, (0xD0 if call else 0xE0) | register & 7])
    made = head + (LFENCE if lfence else b"") + branch
    # r8 to r15 with a condition and lfence do not fit: ``patch_retpoline`` gives up, and the thunk stays.
    if len(made) > length:
        return None
    if not call and len(made) < length:  # against speculation that goes straight on behind a jump
        made += bytes([INT3])
    return made.ljust(length, b"\x90")

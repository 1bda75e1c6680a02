"""What the kernel's own ``paravirt_patch_default`` puts in place of a call, in both of its generations.

Sources: ``paravirt_patch_default``, ``paravirt_patch_call``, ``paravirt_patch_jmp`` of arch/i386/kernel/paravirt.c
(2.6.23, 2.6.24) and ``paravirt_patch`` of arch/x86/kernel/paravirt.c (5.x, 6.1).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pvops_core.errors import PatchError
from pvops_core.ops.model import Convention

if TYPE_CHECKING:
    from collections.abc import Collection

    from pvops_core.patching.context import PatchContext, Patcher
    from pvops_core.patching.patchlets import Patchlet

CALL_OPCODE = 0xE8
JUMP_OPCODE = 0xE9
BRANCH_SIZE = 5
UD2A = b"\x0f\x0b"
LONGEST_SITE = 254
"""``apply_paravirt`` BUGs on a longer one: its buffer (MAX_PATCH_LEN, arch/x86/include/asm/alternative.h) ends."""


def write_branch(opcode: int, insnbuf: bytearray, addr: int, target: int) -> int:
    """Write ``call`` or ``jmp rel32`` that is right at ``addr``, where the code will live, and give its size.

    Raises:
        PatchError: the target is more than 2 GiB away.
    """
    try:
        struct.pack_into("<Bi", insnbuf, 0, opcode, target - (addr + BRANCH_SIZE))
    except struct.error:
        raise PatchError(f"target {target:#x} is out of reach of a rel32", address=addr) from None
    return BRANCH_SIZE


def patch_default(ctx: PatchContext, type: int, clobbers: int, insnbuf: bytearray, addr: int, len: int) -> int:
    """Replace an indirect call by what the slot holds now.

    Kernels whose table has a ``patch`` slot (2.6) decide by clobbers and leave alone what they cannot replace; later
    ones have 6-byte sites only and always write a call.

    Args:
        ctx: the table.
        type: type number of the op (u8).
        clobbers: registers that the site lets be destroyed (u16, :class:`Clobber`).
        insnbuf: ``len`` bytes, at first the site's own.
        addr: guest-virtual address of the site.
        len: bytes of the site.

    Returns:
        Bytes of ``insnbuf`` used; the caller pads the rest with nops. ``len`` leaves the site alone.
    """
    if ctx.has_patch_slot:
        return _patch_2007(ctx, type, clobbers, insnbuf, addr, len)
    target = ctx.target(type)
    # A function that does nothing is not called: its site becomes nops.
    if target == ctx.nop_address:
        return 0
    return write_branch(CALL_OPCODE, insnbuf, addr, target or ctx.bug_address)


def patch_inline(
    ctx: PatchContext,
    patchlets: Collection[Patchlet],
    type: int,
    clobbers: int,
    insnbuf: bytearray,
    addr: int,
    len: int,
) -> int:
    """Put one of these patchlets in place of a call where it stands for the op and fits; else :func:`patch_default`.

    Args:
        ctx: the table.
        patchlets: a backend's own.
        type: as for :func:`patch_default`, as are the others.
        clobbers: likewise.
        insnbuf: likewise.
        addr: likewise.
        len: likewise.

    Returns:
        Likewise.
    """
    patchlet = ctx.patchlets.get(ctx.layout.by_type(type).op.name)
    # What serves an op in general may be too long for a site: then the call stays, and is made direct.
    if patchlet is None or patchlet not in patchlets or patchlet.size > len:
        return patch_default(ctx, type, clobbers, insnbuf, addr, len)
    insnbuf[: patchlet.size] = patchlet.assemble(addr, ctx.symbols)
    return patchlet.size


def _patch_2007(ctx: PatchContext, type: int, clobbers: int, insnbuf: bytearray, addr: int, len: int) -> int:
    target = ctx.target(type)
    # 2.6's table has empty slots that must not be called: ud2a says which at once.
    if not target:
        insnbuf[: min(len, 2)] = UD2A[:len]
        return min(len, 2)
    if target == ctx.nop_address:
        return 0
    # Too short for a call rel32: 7-byte sites that call through a register (2.6.24).
    if len < BRANCH_SIZE:
        return len
    # iret and sysexit come back to nobody, so the site jumps.
    if ctx.layout.by_type(type).op.convention is Convention.JUMP:
        return write_branch(JUMP_OPCODE, insnbuf, addr, target)
    # The target is C: it may destroy every caller-saved register, so the site must let it.
    if ctx.heeds_clobbers and ctx.any_register & ~clobbers:
        return len
    return write_branch(CALL_OPCODE, insnbuf, addr, target)


def patch_site(ctx: PatchContext, patch: Patcher, type: int, clobbers: int, original: bytes, addr: int) -> bytes:
    """The bytes that ``apply_paravirt`` writes over one site.

    The buffer begins as a copy of the original, so that a patcher that declines leaves the site as it was
    (commit d34fda4a84c1, 2007), and what the patcher does not use becomes nops.

    Raises:
        PatchError: the site is too long for the kernel's buffer, or the patcher used more than there is or changed
            the buffer's size.
    """
    length = len(original)
    # The kernel's BUG_ON is an error here, with the site's address.
    if length > LONGEST_SITE:
        raise PatchError(f"a site of {length} bytes; the kernel takes {LONGEST_SITE}", address=addr)
    insnbuf = bytearray(original)
    used = patch(ctx, type, clobbers, insnbuf, addr, length)
    # What a hook leaves behind it must be one that could have been written.
    if len(insnbuf) != length or not 0 <= used <= length:
        op = ctx.layout.by_type(type).op.name
        raise PatchError(f"patch used {used} of {length} bytes", op=op, address=addr, code=bytes(insnbuf))
    # The rest of the buffer held the original bytes; only now are they given up.
    if used < length:
        insnbuf[used:] = ctx.nops(length - used)
    return bytes(insnbuf)

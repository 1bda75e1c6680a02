"""What the kernel's own ``paravirt_patch_default`` puts in place of a call, in both of its generations.

Sources: ``paravirt_patch_default``, ``paravirt_patch_call``, ``paravirt_patch_jmp`` of arch/i386/kernel/paravirt.c
(2.6.23, 2.6.24) and ``paravirt_patch`` of arch/x86/kernel/paravirt.c (5.x, 6.1).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from pvops_core.errors import PatchError
from pvops_core.ops.model import Convention
from pvops_core.patching.context import Branch

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

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
    shape = type, clobbers, len
    if shape not in ctx.chosen:
        ctx.chosen[shape] = _chosen(ctx, type, clobbers, len)
    chosen = ctx.chosen[shape]
    if chosen is None:
        return len
    if isinstance(chosen, Branch):
        return write_branch(chosen.opcode, insnbuf, addr, chosen.target)
    size = chosen.__len__()  # the kernel's name of the argument hides the function
    insnbuf[:size] = chosen
    return size


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


def _chosen(ctx: PatchContext, type: int, clobbers: int, length: int) -> bytes | Branch | None:
    """What takes the place of a call, wherever it is: code, or a branch; None for what is there already."""
    target = ctx.target(type)
    # 2.6's table has empty slots that must not be called: ud2a says which at once.
    if not target and ctx.has_patch_slot:
        return UD2A[:length]
    # A function that does nothing is not called: its site becomes nops.
    if target == ctx.nop_address:
        return b""
    if not ctx.has_patch_slot:
        return Branch(CALL_OPCODE, target or ctx.bug_address)
    # Too short for a call rel32: 7-byte sites that call through a register (2.6.24).
    if length < BRANCH_SIZE:
        return None
    # iret and sysexit come back to nobody, so the site jumps.
    jumps = ctx.layout.by_type(type).op.convention is Convention.JUMP
    # Else the target is C: it may destroy every caller-saved register, so the site must let it.
    if not jumps and ctx.heeds_clobbers and ctx.any_register & ~clobbers:
        return None
    return Branch(JUMP_OPCODE if jumps else CALL_OPCODE, target)


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


def patch_sites(
    ctx: PatchContext,
    patch: Patcher,
    type: int,
    clobbers: int,
    original: NDArray[np.uint8],
    addresses: NDArray[np.uint64],
) -> NDArray[np.uint8]:
    """As :func:`patch_site` for rows of sites that are alike but for their address; the kernel's own rule at once."""
    length = original.shape[1]
    if patch is not patch_default or not BRANCH_SIZE <= length <= LONGEST_SITE:
        whole = original.tobytes()
        codes = [
            patch_site(ctx, patch, type, clobbers, whole[row * length : (row + 1) * length], address)
            for row, address in enumerate(addresses.tolist())
        ]
        return np.frombuffer(b"".join(codes), np.uint8).reshape(-1, length)
    chosen = _chosen(ctx, type, clobbers, length)
    if chosen is None:
        return original
    code = chosen if isinstance(chosen, bytes) else bytes((chosen.opcode,)).ljust(BRANCH_SIZE, b"\0")
    padded = code + ctx.nops(length - len(code)) if len(code) < length else code
    found = np.tile(np.frombuffer(padded, np.uint8), (len(addresses), 1))
    if isinstance(chosen, Branch):
        found[:, 1:BRANCH_SIZE] = _displacements(chosen, addresses).view(np.uint8).reshape(-1, 4)
    return found


def _displacements(branch: Branch, addresses: NDArray[np.uint64]) -> NDArray[np.int32]:
    """The rel32 at each address; PatchError as of :func:`write_branch`."""
    behind = addresses + np.uint64(BRANCH_SIZE)
    far = (np.uint64(branch.target) - behind).view(np.int64)
    # One that would come around the end of all addresses is out of reach as well.
    reached = (far == far.astype(np.int32)) & ((far >= 0) == (np.uint64(branch.target) >= behind))
    if not reached.all():
        write_branch(branch.opcode, bytearray(BRANCH_SIZE), int(addresses[reached.argmin()]), branch.target)
    return far.astype("<i4")

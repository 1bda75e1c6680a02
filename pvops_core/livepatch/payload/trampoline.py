"""The bytes that turn an old function into its replacement: a jump, or nops.

Source: arch_livepatch_apply, arch_livepatch_verify_func and livepatch_verify_distance of xen/arch/x86/livepatch.c.
"""

from __future__ import annotations

import errno

from pvops_core.kinds import MachineKind
from pvops_core.livepatch.errors import LivepatchError
from pvops_core.livepatch.payload.model import OPAQUE_SIZE
from pvops_core.patching.code.nops import NOPS, NopKind

JUMP_SIZE = 5
ENDBR64 = bytes.fromhex("f30f1efa")  # SDM volume 2, ENDBR64


def offset_of(kind: MachineKind, begin: bytes, new_address: int) -> int:
    """Where in a function the jump goes: behind an ``endbr64``, which must stay what indirect calls find."""
    return len(ENDBR64) if new_address and kind is MachineKind.X86_64 and begin.startswith(ENDBR64) else 0


def code_for(kind: MachineKind, old: int, old_size: int, offset: int, new: int, new_size: int) -> bytes:
    """What is written at ``old + offset``.

    Args:
        kind: the machine.
        old: guest-virtual address of the old function.
        old_size: its bytes.
        offset: as :func:`offset_of` gives it.
        new: guest-virtual address of the new function; 0 for nops.
        new_size: its bytes, or how many nops.

    Raises:
        LivepatchError: EOPNOTSUPP for more nops than can be saved, EINVAL where the old function is too short,
            EOVERFLOW where the new one is further than 2 GiB away.
    """
    if not old_size:
        raise LivepatchError("old_size is zero")
    if not new:
        return _nops(kind, old_size, new_size)
    if old_size < offset + JUMP_SIZE:
        raise LivepatchError(f"old_size is {old_size}; a jump takes {offset + JUMP_SIZE} bytes")
    # From behind the jump (SDM volume 2, JMP).
    distance = new - (old + offset + JUMP_SIZE)
    if kind is not MachineKind.X86_64:
        distance = (distance + (1 << 31)) % (1 << 32) - (1 << 31)  # addresses wrap at 4 GiB: everything is in reach
    if not -(1 << 31) <= distance < 1 << 31:
        raise LivepatchError(f"{new:#x} is more than 2 GiB from {old:#x}", errno=errno.EOVERFLOW)
    return b"\xe9" + distance.to_bytes(4, "little", signed=True)


def _nops(kind: MachineKind, old_size: int, size: int) -> bytes:
    # The bytes that are replaced are kept in 31 bytes.
    if size > OPAQUE_SIZE:
        raise LivepatchError(f"{size} bytes of nops; {OPAQUE_SIZE} can be saved", errno=errno.EOPNOTSUPP)
    if not 0 < size <= old_size:
        raise LivepatchError(f"{size} bytes of nops in a function of {old_size}")
    return NOPS[NopKind.MODERN_64 if kind is MachineKind.X86_64 else NopKind.GENERIC](size)

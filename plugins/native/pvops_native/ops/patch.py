"""The patch op: native_patch of 2.6.23 and 2.6.24; paravirt_patch of 6.1, which inlines nothing.

Source: arch/i386/kernel/paravirt.c, native_patch, paravirt_patch_insns and paravirt_patch_nop (2.6.23;
paravirt_32.c in 2.6.24); arch/x86/kernel/paravirt.c, paravirt_patch (6.1): there ALTERNATIVE entries do the
inlining, after this step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.hookspecs import hookimpl
from pvops_core.patching.patchdefault import patch_default
from pvops_native.ops.base import NativeGroup
from pvops_native.patchlets import IDENTITIES, patchlets_of

if TYPE_CHECKING:
    from pvops_core.ops import Layout
    from pvops_core.patching.context import PatchContext


def native_code(ctx: PatchContext, op: str, addr: int) -> bytes | None:
    """The code that native_patch names for an op at an address; None if it leaves the op to the default.

    The kernel's table is fixed: it does not ask what the slot holds.
    """
    # A kernel without the slot patches by alternatives, after this step.
    if not ctx.has_patch_slot:
        return None
    # Nops, for an argument that stands in the result's register is the result.
    if op in IDENTITIES and _one_struct(ctx.layout):
        return b""
    patchlet = patchlets_of(ctx.layout).get(op)
    return None if patchlet is None else patchlet.assemble(addr, ctx.symbols)


def _one_struct(layout: Layout) -> bool:
    """2.6.23: one struct paravirt_ops, whose native_patch makes nops of entry conversions; 2.6.24 calls them."""
    return layout.by_type(0).symbol == "paravirt_ops"


class PatchOps(NativeGroup):
    """init.patch."""

    @hookimpl
    def patch(self, ctx: PatchContext, type: int, clobbers: int, insnbuf: bytearray, addr: int, len: int) -> int:
        """native_patch: unsigned int, bytes used of ``insnbuf``.

        A site too short for its instructions is left alone (``len`` is returned); it does not get a call instead.
        """
        code = native_code(ctx, ctx.layout.by_type(type).op.name, addr)
        if code is None:
            # No code of its own: what paravirt_patch_default() does.
            return patch_default(ctx, type, clobbers, insnbuf, addr, len)
        used = memoryview(code).nbytes
        # "Too long" is told by the site's length, which leaves the call as it is (paravirt_patch_insns()).
        if used > len:
            return len
        insnbuf[:used] = code
        return used

"""Backends with a patchlet that is longer than the call it replaces, for three patchers of the past.

Each is bare metal, but for ``irq_disable``: without ``cli``, by clearing the flag in a pushed copy. That takes ten
bytes, and a call has six. They are here to fail; nobody installs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pvops_core.backends import API, Backend
from pvops_core.hookspecs import hookimpl
from pvops_core.kinds import MachineKind
from pvops_core.patching.patchdefault import patch_default
from pvops_core.patching.patchlets import Patchlet
from pvops_core.patching.poke import Poke, Poker

if TYPE_CHECKING:
    from pvops_core.backends import Environment
    from pvops_core.patching.context import PatchContext

OP: Final = "irq_disable"
PATCHLET: Final = Patchlet(
    OP,
    "pushfq; and qword ptr [rsp], 0xfffffffffffffdff; popfq",
    "9c 48 81 24 24 ff fd ff ff 9d",
    layouts=("6.1-64",),
)


class LongPatcher:
    """Inlines the patchlet at sites of its op, and makes direct calls of all other sites."""

    def __init__(self, env: Environment) -> None:
        self.env = env

    @hookimpl
    def patch(self, ctx: PatchContext, type: int, clobbers: int, insnbuf: bytearray, addr: int, len: int) -> int:
        """Bytes of ``insnbuf`` used."""
        if ctx.layout.by_type(type).op.name != OP:
            return patch_default(ctx, type, clobbers, insnbuf, addr, len)
        return self.inline(PATCHLET.assemble(addr, ctx.symbols), insnbuf, addr)

    def inline(self, code: bytes, insnbuf: bytearray, addr: int) -> int:
        """As ``paravirt_patch_insns`` does: what does not fit is left alone."""
        del addr
        if len(code) > len(insnbuf):
            return len(insnbuf)
        insnbuf[: len(code)] = code
        return len(code)


class Reporting(LongPatcher):
    """Fills the kernel's buffer, which is long enough, and says truly how much of it it used."""

    def inline(self, code: bytes, insnbuf: bytearray, addr: int) -> int:
        """More than the site has."""
        del addr
        insnbuf[:] = code.ljust(len(insnbuf), b"\x90")
        return len(code)


class Overrunning(LongPatcher):
    """Writes straight to where the code is to be, as patchers did until 2007, and does not look at the length."""

    def inline(self, code: bytes, insnbuf: bytearray, addr: int) -> int:
        """All of the site, and what follows it."""
        # Text is poked from no handler: it waits until every vCPU has stopped.
        self.env.machine.defer(lambda: self._write(code, addr))
        used = min(len(code), len(insnbuf))
        insnbuf[:used] = code[:used]
        return used

    def _write(self, code: bytes, addr: int) -> None:
        poker = Poker.of(self.env.machine)
        now = poker.read(np.array([addr], dtype=np.uint64), len(code))[0].tobytes()
        poker.transaction([Poke(addr, now, code)], by="too-long")


def backend_with(ops: type[LongPatcher]) -> Backend:
    """A backend that nobody has checked, with one of these patchers."""
    return Backend(
        name="too-long",
        api=API,
        description="bare metal with a patchlet that does not fit",
        base="native",
        ops=ops,
        patchlets=(PATCHLET,),
        kinds=frozenset({MachineKind.X86_64}),
    )


backend: Final = backend_with(LongPatcher)
"""What a plugin would declare."""

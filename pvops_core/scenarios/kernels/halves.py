"""What patchers did before August 2007, in front of a kernel that does it rightly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from pvops_core.guest.stacks.spans import Spans
from pvops_core.patching.poke import Poke
from pvops_core.scenarios.kernels.patching import PatchOp

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.machine import Breakpoint, Vcpu
    from pvops_core.patching.sites import SiteRecord
    from pvops_core.scenarios.kernels.patching import PatchRequest
    from pvops_core.session import Session

LOOKS: Final = ("lookup_address", "lookup_address_in_pgd")
"""What finds the page-table entry of a page of text, in C (arch/x86/mm/pageattr.c)."""
POKES: Final = "text_poke_early"
"""What writes a site at boot. It has calls of its own, which some patchers leave alone."""
_BY: Final = "scenario patch-in-place"
_BUFFER: Final = 254
"""MAX_PATCH_LEN less one (kernel/alternative.c)."""
_SCRATCH: Final = 1024
"""Bytes of the kernel's stack that the walk is kept away from."""


class TwoStages:
    """Writes the new code over each site first, and has its page looked up before the kernel goes on to poke it all.

    Args:
        session: whose kernel it is; it has not run yet.

    Attributes:
        site: the site whose remains were executed, else the last that was half new; None before there is one.
        function: the function that it lies in.
        used: bytes of new code in it.
        ran: where the kernel went on behind the new code while the rest was old; None as long as it did not.
        before: how many sites were patched before.
    """

    def __init__(self, session: Session) -> None:
        self.site: SiteRecord | None = None
        self.function = ""
        self.used = self.before = 0
        self.ran: int | None = None
        self._session, self._machine = session, session.machine
        self._walk = next(session.guest.symbols[name] for name in LOOKS if name in session.guest.symbols)
        self._sites = {site.address: site for site in session.table.sites} if session.table else {}
        self._there: bytes | None = None
        self._rest: Breakpoint | None = None
        self._op = PatchOp(session, answered=self._answered)

    def _answered(self, cpu: Vcpu, asked: PatchRequest | None, used: int) -> None:
        if self._there is not None:  # the walk has come back
            cpu.load_registers(self._there)
            self._there = None
            if self.function in LOOKS:
                self._forget()
        elif asked is not None:
            self._forget()
            self._begin(cpu, asked, used)

    def _begin(self, cpu: Vcpu, asked: PatchRequest, used: int) -> None:
        if 0 < used < asked.length:
            code = cpu.read_virtual(asked.buffer, used)
            self._machine.defer(lambda: self._half(cpu, asked, code))

    def _half(self, cpu: Vcpu, asked: PatchRequest, code: bytes) -> None:
        """The first stage, then the walk, from which the kernel comes back to where it stands."""
        old, site = self._session.read(asked.address, asked.length), self._sites.get(asked.address)
        if site is None or old.startswith(code):
            return
        half = Poke(asked.address, old, code + old[len(code) :])
        nobody = Spans(np.array([[asked.address, asked.address + asked.length]], dtype=np.uint64))
        self._session.poker.transaction([half], by=_BY, asked=nobody)  # patchers of those days asked nobody
        self.function = function_of(self._session.guest.image, asked.address)
        self.site, self.used, self.before = site, len(code), len(self._op.sites) - 1
        if self.function in {*LOOKS, POKES}:
            self._rest = self._machine.break_at(asked.address + len(code), self._went_on, acts=False)
        self._there, back = cpu.save_registers(), cpu.rip
        # Away from what the patcher has on its stack, and aligned as compilers expect it at a call.
        stack = (cpu.rsp - _SCRATCH) & ~0xF
        cpu.rsp = stack
        cpu.push(back)
        # lookup_address(address, &level): both are in registers on i386 too, which is built with regparm(3).
        page, level = ("rdi", "rsi") if self._session.guest.image.pointer_size == 8 else ("eax", "edx")
        cpu.set(page, asked.address)
        cpu.set(level, stack + _SCRATCH // 2)
        cpu.rip = self._walk

    def _went_on(self, cpu: Vcpu) -> None:
        rest, image = cpu.rip, self._session.guest.image
        old = self.site is not None and rest - self.site.address < self.site.length
        if self.ran is None and old and self._session.read(rest, 1) == image.read(rest, 1):
            self.ran = rest

    def _forget(self) -> None:
        rest, self._rest = self._rest, None
        if rest is not None:
            self._machine.defer(lambda: self._machine.remove(rest))


def function_of(image: KernelImage, address: int) -> str:
    """The function that an address lies in, without what a compiler puts behind its name; empty where it is in none."""
    return (image.symbol_at(address) or ("", 0))[0].partition(".")[0]


class Uninitialised:
    """Gives the kernel's buffer back what it held after the site before, in place of the copy of this one.

    Args:
        session: whose kernel it is; it has not run yet.
        declined: the sites that the platform's patcher leaves alone.

    Attributes:
        wrote: what was written over each of those, by address.
        held: the same, as it was in the buffer before the patcher was asked.
        ran: address of the first of them that was executed with something else in it; None as long as none was.
    """

    def __init__(self, session: Session, declined: Sequence[SiteRecord]) -> None:
        self.wrote: dict[int, bytes] = {}
        self.held: dict[int, bytes] = {}
        self.ran: int | None = None
        self._session, self._machine = session, session.machine
        self._declined = {site.address: site for site in declined}
        self._buffer = bytearray()
        self._last: PatchRequest | None = None
        self._watched: list[Breakpoint] = []
        self._op = PatchOp(session, asked=self._asked)

    @property
    def sites(self) -> Sequence[int]:
        """The sites that the patcher was asked about."""
        return self._op.sites

    def _asked(self, cpu: Vcpu, asked: PatchRequest) -> None:
        if self._last is None:  # what the stack held before nobody knows: the first has its copy
            self._buffer += cpu.read_virtual(asked.buffer, _BUFFER)
        else:
            self._done(self._last)
        self.held[asked.address] = bytes(self._buffer[: asked.length])
        cpu.write_virtual(asked.buffer, self.held[asked.address])
        self._last = asked

    def _done(self, asked: PatchRequest) -> None:
        """The site before has been poked: so much of the buffer is what stands there."""
        code = self._session.read(asked.address, asked.length)
        self._buffer[: asked.length] = code
        site = self._declined.get(asked.address)
        if site is None:
            return
        self.wrote[asked.address] = code
        if self.ran is None and code != self._session.guest.image.read(asked.address, asked.length):
            self._machine.defer(lambda: self._watch(asked.address))

    def _watch(self, address: int) -> None:
        self._watched.append(self._machine.break_at(address, self._at, acts=False))

    def _at(self, cpu: Vcpu) -> None:
        self.ran = cpu.rip if self.ran is None else self.ran

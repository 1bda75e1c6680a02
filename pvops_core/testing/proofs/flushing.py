"""Which cached translations a call drops, whether guest code does it by its own instructions or Python for it.

The engine tells nobody of ``invlpg`` and of loads of control registers, so each place in a kernel's text that may be
one is looked at (Intel SDM volume 2: ``0F 01 /7``, ``0F 22 /r``, ``66 0F 38 82 /r``). What is in the midst of another
instruction is never executed, and costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu.instructions.insn import CR4_FLUSHES

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.session import Session

_PLACES: Final = re.compile(
    rb"(?P<rex>[\x40-\x4f]?)(?:\x0f\x22(?P<cr>[\xd8-\xe7])|\x0f\x01(?P<invlpg>[\x38-\x3f\x78-\x7f\xb8-\xbf])"
    rb"|(?P<invpcid>\x66\x0f\x38\x82))"
)
_BY_NUMBER: Final = {
    32: ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"),
    64: ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16))),
}
"""General registers by number in an instruction."""
_SOMEWHERE: Final = "an address"
Flush = int | str


class Flushing:
    """Notes what is dropped in one session, from when it is made, before the kernel runs.

    Args:
        session: the session.
    """

    def __init__(self, session: Session) -> None:
        self._machine = session.machine
        self._seen: list[tuple[int, Flush]] = []
        self._names = _BY_NUMBER[session.machine.kind.bits]
        for address, match in _found(session):
            self._machine.break_at(address, self._at(match), acts=False)
        session.machine.flushed = lambda vcpu, what: self._seen.append((vcpu, what))

    def begin(self) -> None:
        """Forget what has been noted."""
        self._seen.clear()

    @property
    def seen(self) -> tuple[tuple[int, Flush], ...]:
        """By which vCPU, and what, in order; the same once more in a row drops nothing."""
        return tuple(each for each, _ in groupby(self._seen))

    def _at(self, match: re.Match[bytes]) -> Callable[[Vcpu], None]:
        """What happens at a place."""
        rex = match["rex"][0] if match["rex"] else 0
        # REX.B makes the register one of r8 to r15 (SDM volume 2, 2.2.1.2).
        high = 8 if rex & 1 else 0

        def load(vcpu: Vcpu) -> None:
            # Of the ModRM byte reg names the control register, rm the general one.
            number, value = match["cr"][0] >> 3 & 7, vcpu.get(self._names[high + (match["cr"][0] & 7)])
            if number == 3:
                self._seen.append((vcpu.index, "space"))
            elif (value ^ vcpu.cr4) & CR4_FLUSHES:
                self._seen.append((vcpu.index, "all"))

        def page(vcpu: Vcpu) -> None:
            modrm = match["invlpg"][0]
            # mod 0 is a register's address as such, but for 4, a SIB byte, and 5, a displacement (SDM volume 2, table
            # 2-2).
            plain = modrm >> 6 == 0 and modrm & 7 not in {4, 5}
            self._seen.append((vcpu.index, vcpu.get(self._names[high + (modrm & 7)]) if plain else _SOMEWHERE))

        def context(vcpu: Vcpu) -> None:
            self._seen.append((vcpu.index, "all"))

        return load if match["cr"] else page if match["invlpg"] else context


def _found(session: Session) -> Iterator[tuple[int, re.Match[bytes]]]:
    """Places in the kernel's text, and what may be there. A byte before may be a prefix, or end another instruction."""
    image = session.guest.image
    for section in image.sections:
        if not section.executable or not section.in_file:
            continue
        data = image.read(section.address, section.size)
        for match in _PLACES.finditer(data):
            yield section.address + match.start(), match
            if match["rex"]:
                bare = _PLACES.match(data, match.start() + 1)
                assert bare is not None, "a match without its prefix is one too"
                yield section.address + bare.start(), bare

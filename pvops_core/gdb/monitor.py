"""What a person asks by ``monitor …``: the guest at the level of its paravirt ops, which a debugger does not know."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from pvops_core.errors import PvopsError, UsageError, printable, unknown
from pvops_core.guest import find_symbol
from pvops_core.guests import BuiltinGuest
from pvops_core.switchboard.choosing import chosen

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.ops import Slot
    from pvops_core.session import Session

_ADDRESS: Final = re.compile(r"(?:0x)?([0-9a-fA-F]{1,16})\Z")


class Monitor:
    """Answers for one session, while its guest stands."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._machine = session.machine
        self._verbs: dict[str, tuple[str, Callable[[list[str]], Iterator[str]]]] = {
            "help": ("this list", self._help),
            "where": ("where each vCPU is, by symbol", self._where),
            "vcpus": ("each vCPU's state, privilege level and page tables", self._vcpus),
            "ops": ("[OP | GLOB]… what serves each op, and where its slot is", self._ops),
            "hypercalls": ("how often each was made", self._hypercalls),
            "time": ("virtual time, and what has been executed", self._time),
            "symbol": ("NAME | ADDRESS  the one for the other", self._symbol),
        }

    def answer(self, line: str) -> str:
        """What a command line is answered with, in lines; an error is an answer too."""
        verb, *words = line.split() or ["help"]
        try:
            if verb not in self._verbs:
                raise unknown("command", verb, list(self._verbs))
            return "".join(f"{printable(text)}\n" for text in self._verbs[verb][1](words))
        except PvopsError as error:
            return f"{printable(str(error))}\n"

    def state(self, vcpu: Vcpu) -> str:
        """A vCPU's state in a few words."""
        if vcpu.halted and not vcpu.rip:  # as Xen and PCs leave processors that no guest has brought up
            return "not started"
        return f"level {vcpu.cpl}{', sleeps' if vcpu.halted else ''}{', held' if vcpu.held else ''}"

    def _help(self, _words: list[str]) -> Iterator[str]:
        for verb, (text, _) in self._verbs.items():
            yield f"{verb:<12}{text}"

    def _where(self, _words: list[str]) -> Iterator[str]:
        yield self._session.where()

    def _vcpus(self, _words: list[str]) -> Iterator[str]:
        for vcpu in self._machine.vcpus:
            pending = f", pending {' '.join(map(hex, vcpu.pending))}" if vcpu.pending else ""
            interrupts = "on" if vcpu.interrupts_enabled else "off"
            yield (
                f"vcpu {vcpu.index} (thread {vcpu.index + 1}): {self.state(vcpu)}, rip {vcpu.rip:#x}, "
                f"cr3 {vcpu.cr3:#x}, interrupts {interrupts}{pending}"
            )

    def _ops(self, words: list[str]) -> Iterator[str]:
        table = self._session.known_table
        slots = chosen(table.layout, words) if words else table.layout.slots
        for slot in slots:
            if not slot.op.is_data:
                yield f"{slot.path:<36}{table.address(slot):#018x}  {self._serving(slot)}"

    def _serving(self, slot: Slot) -> str:
        session, table = self._session, self._session.known_table
        # Asking a kernel's hooks would make them, which breaks into the kernel.
        made = isinstance(session.guest, BuiltinGuest) or session.made_hooks is not None
        target = table.target(slot)
        there = f"{table.name(target)} ({target:#x})" if target else "empty"
        name = session.ops.implementation(slot.op.name).name if made else table.name(target)
        return there if name in {table.name(target), ""} else f"{name}, by {there}"

    def _hypercalls(self, _words: list[str]) -> Iterator[str]:
        made = self._session.platform.hypercalls
        yield from (f"{name:<36}{count}" for name, count in made.most_common())
        yield f"{'in all':<36}{made.total()}"

    def _time(self, _words: list[str]) -> Iterator[str]:
        machine = self._machine
        yield f"virtual time {machine.clock.ns} ns, {machine.blocks} blocks of code, {len(machine.log)} events"
        if machine.count_instructions:
            yield f"{machine.instructions} instructions"

    def _symbol(self, words: list[str]) -> Iterator[str]:
        if not words:
            raise UsageError("symbol takes names and addresses")
        image = self._session.guest.image
        for word in words:
            if word not in image.symbols and (match := _ADDRESS.match(word)):
                address = int(match[1], 16)
                found = image.symbol_at(address)
                name = "below all symbols" if found is None else f"{found[0]}+{found[1]:#x}"
            else:
                address, name = find_symbol(image, word), word
            yield f"{address:#018x}  {name}"

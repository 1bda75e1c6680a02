"""The moments of a boot at which a kernel is looked at, and what is read there.

A kernel patches itself in ``alternative_instructions`` (arch/x86/kernel/alternative.c), which calls ``apply_paravirt``
(up to 6.7) and ``apply_alternatives`` with the bounds of the records that were linked in. Modules, and other parts of
some kernels, call these too, with other records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import ImageError
from pvops_core.patching.altinstructions.alternatives import SECTION as ALTERNATIVES
from pvops_core.patching.altinstructions.alternatives import AltGroup, grouped, read_alternatives
from pvops_core.patching.sites import SECTION as PARAVIRT
from pvops_core.patching.sites import SiteRecord, read_sites
from pvops_core.patching.tables import find_table
from pvops_core.recording.stub import CHUNK, RecordingError, Stub

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.ops import Layout

START, WHOLE, INIT = "start_kernel", "alternative_instructions", "run_init_process"
STEPS: Final = {"apply_paravirt": PARAVIRT, "apply_alternatives": ALTERNATIVES}
"""Functions that patch, and the section whose records they are first called with."""

HEAD: Final = 512
"""Bytes of ``boot_cpu_data`` that a record has; see :mod:`pvops_core.patching.altinstructions.capabilities`."""

_FREED: Final = ("__init_begin", "__init_end")
"""Bounds of what is gone when the first process starts."""


@attrs.frozen(eq=False)
class WatchedKernel:
    """A kernel, and what of it is looked at.

    Attributes:
        image: the kernel.
        sites: its call sites.
        layout: of its tables of ops.
        slots: address of each slot, by type number.
        groups: all its places with alternatives.
    """

    image: KernelImage
    sites: tuple[SiteRecord, ...]
    layout: Layout
    slots: tuple[int, ...]
    groups: tuple[AltGroup, ...]


def read_subject(image: KernelImage) -> WatchedKernel:
    """Find out where to look.

    Raises:
        ImageError: the kernel has no call sites, or they are damaged.
    """
    sites = read_sites(image)
    if not sites:
        raise image.error(
            "annotates no call of an op: there is nothing to record", field=f"{PARAVIRT} or {ALTERNATIVES}"
        )
    table = find_table(image, sites)
    slots = tuple(table.slots[number] for number in sorted(table.slots))
    if len(slots) != len(table.layout.slots):
        raise image.error(f"do not say where the {table.layout.name} table is", field="symbols")
    return WatchedKernel(image, sites, table.layout, slots, grouped(read_alternatives(image)))


@attrs.define(eq=False)
class RecordedStops:
    """What was read.

    Attributes:
        table: what each slot held before the first step of patching.
        boot_cpu_data: the beginning of that variable before ``apply_alternatives``; empty where the kernel has none.
        sites: name of a step to the bytes of every site after it.
        groups: name of a moment to the bytes of every place with alternatives then; None of a place that is gone.
        log: the stops, as name and address.
    """

    table: tuple[int, ...] = ()
    boot_cpu_data: bytes = b""
    sites: dict[str, list[bytes]] = attrs.field(factory=dict)
    groups: dict[str, list[bytes | None]] = attrs.field(factory=dict)
    log: list[tuple[str, int]] = attrs.field(factory=list)


class Watcher:
    """Lets a kernel go from moment to moment, and reads.

    Args:
        stub: the machine, before its first instruction.
        subject: the kernel.
    """

    def __init__(self, stub: Stub, subject: WatchedKernel) -> None:
        self._stub, self._subject = stub, subject
        self._seen = RecordedStops()

    def watch(self, *, init: bool) -> RecordedStops:
        """See the kernel through.

        Args:
            init: to the start of its first process; else only until it has patched itself.

        Raises:
            ImageError: its symbols do not name a function that it must come to.
            RecordingError: it does not come there.
        """
        seen, image = self._seen, self._subject.image
        whole, steps = self._symbol(WHOLE), {self._symbol(name): name for name in STEPS if image.section(STEPS[name])}
        self._to(START, self._symbol(START))
        self._look("start")
        self._to(WHOLE, whole)
        end = self._return_address()
        while (at := self._run({end, *steps})) != end:
            name = steps[at]
            section = image.section(STEPS[name])
            # A call with other records than the kernel's own is none of the steps.
            if section is None or self._argument() != section.address:
                self._stub.step()  # over the breakpoint, which stands
                continue
            del steps[at]
            self._note(name, at)
            self._enter(name)
            self._to(f"{name} returned", self._return_address())
            self._leave(name)
        self._note(f"{WHOLE} returned", end)
        if steps:
            raise RecordingError(f"{WHOLE} returned without calling {', '.join(steps.values())}")
        self._look("end")
        if init:
            self._to(INIT, self._symbol(INIT))
            self._look("init", gone=self._gone())
        return seen

    def _enter(self, name: str) -> None:
        seen, subject = self._seen, self._subject
        if not seen.table:
            size = subject.image.pointer_size
            words = self._read([(slot, size) for slot in subject.slots])
            seen.table = tuple(int.from_bytes(word, "little") for word in words)
        if name == "apply_alternatives":
            self._look("enter")
            head = subject.image.symbols.get("boot_cpu_data")
            seen.boot_cpu_data = self._stub.read(head, HEAD) if head is not None else b""

    def _leave(self, name: str) -> None:
        sites = self._read([(site.address, site.length) for site in self._subject.sites])
        if name == "apply_paravirt":
            self._seen.sites["paravirt"] = sites
        else:
            self._look("final")
        self._seen.sites["final"] = sites

    def _look(self, moment: str, gone: range = range(0)) -> None:
        there = [group for group in self._subject.groups if group.address not in gone]
        found = dict(zip(there, self._read([(group.address, group.length) for group in there]), strict=True))
        self._seen.groups[moment] = [found.get(group) for group in self._subject.groups]

    def _gone(self) -> range:
        symbols = self._subject.image.symbols
        return range(*(symbols.get(name, 0) for name in _FREED))

    def _read(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of many places, near ones together."""
        found: dict[tuple[int, int], bytes] = {}
        near: list[tuple[int, int]] = []
        # The last lies behind all others, and so has what is left read.
        for place in [*sorted(places), (1 << 64, 0)]:
            if near and place[0] + place[1] - near[0][0] > CHUNK:
                start = near[0][0]
                data = self._stub.read(start, max(at + length for at, length in near) - start)
                found |= {(at, length): data[at - start : at - start + length] for at, length in near}
                near = []
            near.append(place)
        return [found[place] for place in places]

    def _symbol(self, name: str) -> int:
        address = self._subject.image.symbols.get(name)
        if address is None:
            raise ImageError(f"the kernel has no symbol {name}, where it would be looked at", self._subject.image.path)
        return address

    def _to(self, name: str, address: int) -> None:
        try:
            self._run({address})
        except RecordingError as failure:
            failure.message = f"before {name}: {failure.message}"
            raise
        self._note(name, address)

    def _run(self, addresses: set[int]) -> int:
        """Go to one of these addresses; no breakpoint is left."""
        for address in addresses:
            self._stub.break_at(address)
        self._stub.go()
        for address in addresses:
            self._stub.clear(address)
        at = self._stub.registers()["rip"]
        if at not in addresses:
            raise RecordingError(f"the machine stopped at {at:#x}")
        return at

    def _note(self, name: str, address: int) -> None:
        self._seen.log.append((name, address))

    def _argument(self) -> int:
        """The first argument of a function that was just called: in eax on i386, which is built with regparm(3)."""
        registers = self._stub.registers()
        return registers["rdi" if self._subject.image.pointer_size == 8 else "rax"]

    def _return_address(self) -> int:
        # The function has pushed nothing yet: its return address is on top.
        stack = self._stub.registers()["rsp"]
        return int.from_bytes(self._stub.read(stack, self._subject.image.pointer_size), "little")

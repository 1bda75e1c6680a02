"""The annotated calls of a kernel's modules: noted when the kernel patches them, as they were built.

A module's records are given to the function that patches the kernel's own (``module_finalize``, arch/x86/kernel/
module.c), and are read there. Which module's text a site is in, and whether it is still there, the kernel's own
``struct module`` says whenever that is asked: init text goes when the module has begun, and all of it with the module.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from pvops_core.errors import ImageError, PvopsError
from pvops_core.patching.altinstructions.altrecords import read_loaded
from pvops_core.patching.code.operands import slot_operand
from pvops_core.patching.directcalls import CALL_THROUGH, SITE_SIZE
from pvops_core.patching.parainstructions import read_loaded as read_paravirt
from pvops_core.patching.records import SiteRecord
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from pvops_core.guest import GuestText
    from pvops_core.guest.space import KernelSpace
    from pvops_core.guest.types.structs import Structures
    from pvops_core.images import KernelImage
    from pvops_core.machine import Machine, Vcpu
    from pvops_core.ops import Slot
    from pvops_core.switchboard.kernel.table import OpTable

_SECTION: Final = "a module"
_LARGEST: Final = 1 << 20
"""Bytes of one module's records at most: some 70,000 sites."""
_BEGINS, _ENDS = "do_init_module", "free_module"
"""Functions that are given a module whose text is in place but has not been executed, and one that is to go."""
_LAYOUTS: Final = ("core_layout", "init_layout")
"""Members that say where a module's memory is; since 6.4 that is an array of them, ``mem``."""
_ARGUMENTS: Final = {8: ("rdi", "rsi"), 4: ("eax", "edx")}


class ModuleSitesState(NamedTuple):
    """Modules that have begun, by their ``struct module``; of each site its address, type and code."""

    modules: tuple[int, ...]
    sites: tuple[tuple[int, int, bytes], ...]
    whole: bool


class ModuleSites:
    """Those of one kernel; part of the machine's snapshots.

    Args:
        image: the kernel.
        machine: the machine that it runs on.
        running: its text as it is now, of which the modules' are counted a part.
        space: its address space.
        table: its table of ops.
        structures: gives its memory by its own types, by which modules are known.

    Attributes:
        whole: no module has been patched whose records, or whose kernel's types, could not be read.
    """

    def __init__(
        self,
        image: KernelImage,
        machine: Machine,
        running: GuestText,
        space: KernelSpace,
        table: OpTable,
        structures: Callable[[], Structures],
    ) -> None:
        self._image = image
        self._structures = structures
        self._table = table
        self._sites: dict[int, tuple[SiteRecord, bytes]] = {}
        self._pages: set[int] | None = None
        self._modules: dict[int, None] = {}
        self._begun: list[Callable[[Iterable[SiteRecord]], None]] = []
        self._machine = machine
        # Until something could not be read: then hooks reach no site of it, and that is said.
        self.whole = True
        for name, noted in (
            ("apply_paravirt", self._paravirt),
            ("apply_alternatives", self._alternatives),
            (_BEGINS, self._begins),
            (_ENDS, self._ends),
        ):
            if name in image.symbols:
                machine.break_at(image.symbols[name], noted, acts=False)
        running.add(self, lambda va: space.walk(va).pa)
        machine.keep(self)

    def listen(self, begun: Callable[[Iterable[SiteRecord]], None]) -> None:
        """Call ``begun``, with every vCPU stopped, whenever a module is about to be begun: with its sites."""
        self._begun.append(begun)

    def __contains__(self, va: object) -> bool:
        """Whether a page, by the address of any byte of it, has such sites."""
        if self._pages is None:
            ends = ((site.address, site.address + site.length - 1) for site, _ in self._sites.values())
            self._pages = {place & -PAGE for pair in ends for place in pair}
        return isinstance(va, int) and va & -PAGE in self._pages

    def of(self, slot: Slot) -> Iterator[SiteRecord]:
        """The sites of an op in the modules that there are."""
        wanted = [site for site, _ in self._sites.values() if site.type == slot.type]
        return iter(self._there(wanted, self._modules) if wanted else ())

    def in_the_making(self, slot: Slot) -> bool:
        """Whether the kernel has patched such a site in a module that has not begun yet."""
        return sum(site.type == slot.type for site, _ in self._sites.values()) > len([*self.of(slot)])

    def built(self, address: int) -> bytes | None:
        """The code of a site before the kernel patched it; None if there is none."""
        found = self._sites.get(address)
        return None if found is None else found[1]

    def _there(self, sites: Iterable[SiteRecord], modules: Iterable[int]) -> list[SiteRecord]:
        spans = [span for module in modules for span in self._spans(module)]
        return [site for site in sites if any(start <= site.address < end for start, end in spans)]

    def _spans(self, module: int) -> Iterator[tuple[int, int]]:
        """Where a module's memory is now, as the kernel's types say."""
        found = self._structures().struct("module", module)
        for part in [found[name] for name in _LAYOUTS if name in found] or found.mem:
            if base := int(part.base):
                yield base, base + int(part.size)

    # As the kernel comes by -----------------------------------------------------------------------------------------

    def _records(self, vcpu: Vcpu) -> tuple[int, bytes]:
        """Address and bytes of the records that a function was given; no bytes if they are the kernel's own."""
        start, end = (vcpu.get(name) for name in _ARGUMENTS[self._image.pointer_size])
        # The kernel's own sections hold its own records, which are read from the image.
        if self._image.section_at(start) is not None:
            return start, b""
        if not 0 <= end - start <= _LARGEST:
            raise self._image.error(f"{end - start:#x} bytes of records of a module", field=_SECTION)
        return start, vcpu.virtual.read(start, end - start, system=True)

    def _read(self, vcpu: Vcpu, read: Callable[[int, bytes], None]) -> None:
        try:
            start, data = self._records(vcpu)
            # Without type information where a module's text is, is not known.
            if data and self._image.types is None:
                self.whole = False
            elif data:
                read(start, data)
        except (PvopsError, struct.error):  # records that are none: the kernel's own matter
            self.whole = False

    def _paravirt(self, vcpu: Vcpu) -> None:
        def read(_start: int, data: bytes) -> None:
            for address, type_, length in read_paravirt(self._image, data):
                self._note(vcpu, address, type_, length)

        self._read(vcpu, read)

    def _alternatives(self, vcpu: Vcpu) -> None:
        def read(start: int, data: bytes) -> None:
            slots = {self._table.address(slot): slot.type for slot in self._table.layout.slots}
            entries = read_loaded(self._image, data, start)
            for entry in entries:
                if entry.direct:
                    code = vcpu.virtual.read(entry.address, entry.length, system=True)
                    slot = slot_operand(code, entry.address, self._image.pointer_size)
                    if entry.length != SITE_SIZE or not code.startswith(CALL_THROUGH) or slot not in slots:
                        raise ImageError("annotates no call of an op", self._image.path, field=_SECTION)
                    self._note(vcpu, entry.address, slots[slot], entry.length)
            for entry in entries:  # a place that is more than a site is left to the kernel, as in its own text
                self._drop_mixed(entry.address, entry.address + entry.length)

        self._read(vcpu, read)

    def _note(self, vcpu: Vcpu, address: int, type_: int, length: int) -> None:
        if not 0 <= type_ < len(self._table.layout.slots):
            raise ImageError(f"has a site of op {type_}", self._image.path, field=_SECTION)
        self._drop(address, address + length)
        code = vcpu.virtual.read(address, length, system=True)
        self._sites[address], self._pages = (SiteRecord(address, type_, length, 0, _SECTION), code), None

    def _drop_mixed(self, start: int, end: int) -> None:
        found = self._sites.get(start)
        if found is None or start + found[0].length != end:
            self._drop(start, end)

    def _drop(self, start: int, end: int) -> None:
        """Forget the sites that share a byte with a stretch: what was there is gone."""
        # The longest before it may still reach into the stretch.
        longest = max((site.length for site, _ in self._sites.values()), default=0)
        for address in range(start - longest + 1, end):
            found = self._sites.get(address)
            if found is not None and found[0].address + found[0].length > start:
                del self._sites[address]
                self._pages = None

    def _begins(self, vcpu: Vcpu) -> None:
        module = vcpu.get(_ARGUMENTS[self._image.pointer_size][0])
        self._modules[module] = None
        if self._sites and self._begun:
            # When the handler has returned: text is not written while a vCPU is in it.
            self._machine.defer(lambda: self._tell(module))

    def _tell(self, module: int) -> None:
        sites = self._there([site for site, _ in self._sites.values()], [module])
        for begun in self._begun if sites else ():
            begun(sites)

    def _ends(self, vcpu: Vcpu) -> None:
        """What is in a module's memory is forgotten before that is another's."""
        module = vcpu.get(_ARGUMENTS[self._image.pointer_size][0])
        if self._sites:
            for site in self._there([site for site, _ in self._sites.values()], [module]):
                self._drop(site.address, site.address + site.length)
        self._modules.pop(module, None)

    # Snapshots -------------------------------------------------------------------------------------------------------

    def save(self) -> ModuleSitesState:
        """State for a snapshot."""
        sites = tuple((at, site.type, code) for at, (site, code) in self._sites.items())
        return ModuleSitesState(tuple(self._modules), sites, self.whole)

    def load(self, state: ModuleSitesState) -> None:
        """Go back to a saved state."""
        modules, sites, self.whole = state
        self._modules = dict.fromkeys(modules)
        self._sites = {at: (SiteRecord(at, type_, len(code), 0, _SECTION), code) for at, type_, code in sites}
        self._pages = None

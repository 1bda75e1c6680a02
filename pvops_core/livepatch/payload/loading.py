"""From a payload file to a payload in the guest; all of it, or nothing is left there."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import PvopsError, UsageError
from pvops_core.livepatch.control.registry import Registry, write_name
from pvops_core.livepatch.errors import LivepatchError
from pvops_core.livepatch.payload import contents, description
from pvops_core.livepatch.payload.alternatives import apply_alternatives
from pvops_core.livepatch.payload.area import PageRights
from pvops_core.livepatch.payload.linking import Linked, link
from pvops_core.livepatch.payload.model import Payload
from pvops_core.livepatch.payload.objects import SHF_WRITE, RelocatableObject, read_object

if TYPE_CHECKING:
    from pvops_core.livepatch.guest import PatchedGuest
    from pvops_core.livepatch.payload.linking import Region


@attrs.frozen
class Placed:
    """A payload that is in the guest.

    Attributes:
        payload: what it is.
        regions: the pages it has.
        fixups: faulting instruction to where it goes on.
    """

    payload: Payload
    regions: tuple[Region, ...]
    fixups: dict[int, int]

    @property
    def text(self) -> tuple[int, int]:
        """First address of its text, and the first after it; 0, 0 if it has none."""
        return next(((r.address, r.end) for r in self.regions if r.access is PageRights.TEXT), (0, 0))

    def remove(self, guest: PatchedGuest) -> None:
        """Take it out of the guest and clear its pages."""
        # Cleared before it is unmapped: the bytes go through the guest's own text.
        for region in self.regions:
            guest.write_text(region.address, bytes(len(region.data)), f"livepatch unload {self.payload.name}")
            guest.pages.protect(region.address, len(region.data), None)
            guest.area.release(region.address)


def load(guest: PatchedGuest, name: str, data: bytes, registry: Registry, force: bool) -> Placed:  # noqa: FBT001 - a Loader
    """load_payload_data(): read a payload file, check it, and place it into the guest.

    Raises:
        PayloadError: the file is refused.
        LivepatchError: there is no room for it, or another payload has its build-id.
    """
    kind = guest.machine.kind
    item = read_object(data, name, kind)
    symbols = registry.symbols

    def lookup(symbol: str) -> int | None:
        # The guest's own symbols first: payloads may not stand in front of them.
        found = guest.symbols.get(symbol)
        return symbols.get(symbol) if found is None else found

    def function(symbol: str) -> int | None:
        try:
            # By the guest's finder only where the name is the guest's: it complains of names that mean several
            # functions.
            return guest.find(symbol) if guest.find is not None and symbol in guest.symbols else lookup(symbol)
        except UsageError as error:
            raise LivepatchError(error.message) from error

    linked = link(item, guest.area, lookup, _spare(item, write_name(name), kind.pointer_size))
    target = contents.Target(kind, lookup, function, _reader(guest))
    # From here on the region's pages are taken.
    try:
        placed = _read(guest, name, linked, registry, target, force=force)
        _write(guest, placed)
    except BaseException:
        for region in linked.regions:
            guest.area.release(region.address)
        raise
    return placed


def _spare(item: RelocatableObject, name: bytes, pointer_size: int) -> int:
    section = item.section(contents.FUNCS)
    functions = section.size // contents.FUNC[item.bits].size if section is not None else 0
    return description.size_of(pointer_size, functions, name)


def _reader(guest: PatchedGuest) -> Callable[[int, int], bytes]:
    def read(address: int, length: int) -> bytes:
        try:
            return guest.read(address, length)
        except PvopsError as error:
            raise LivepatchError(str(error)) from error

    return read


def _read(
    guest: PatchedGuest, name: str, linked: Linked, registry: Registry, target: contents.Target, *, force: bool
) -> Placed:
    """Everything that the payload says, in the order in which Xen looks at it."""
    item = linked.item
    contents.check_sections(linked)
    # Before alternatives: entries that point elsewhere must be refused, not applied.
    contents.check_special(linked)
    fixups = contents.exception_table(linked)
    # Before functions are read, for those may lie in text that alternatives rewrite.
    apply_alternatives(linked, guest.features)
    functions = contents.functions(linked, target)
    hooks = contents.hooks(linked)
    own, depends, host = (
        contents.build_id(linked, section) for section in (contents.BUILD_ID, contents.DEPENDS, contents.HOST_DEPENDS)
    )
    # load_payload_data(): a payload of the same build is there already.
    if any(record.payload.build_id == own for record in registry.records):
        raise item.error(f"build-id {own.hex()} is a payload's already", contents.BUILD_ID, errno.EEXIST)
    # --force is for this check alone.
    if host != guest.build_id and not force:
        message = f"it is for {host.hex()}, and the guest is {guest.build_id.hex()}"
        raise item.error(message, contents.HOST_DEPENDS)
    symbols = contents.new_symbols(linked, {function.new_address for function in functions}, target.lookup)
    payload = Payload(
        name=name,
        build_id=own,
        depends=depends,
        functions=functions,
        hooks=hooks,
        metadata=contents.metadata(linked),
        symbols=symbols,
        reappliable=_reappliable(linked),
        handle=_describe(linked, name, len(functions), guest.machine.kind.pointer_size),
    )
    return Placed(payload, linked.regions, fixups)


def _reappliable(linked: Linked) -> bool:
    """Whether no data of the payload's own can have changed while it was applied."""
    return not any(
        # Xen: "safe to reapply" if .livepatch.funcs is its only writable section.
        section.loaded and section.flags & SHF_WRITE and section.name != contents.FUNCS
        for section in linked.item.sections
    )


def _describe(linked: Linked, name: str, functions: int, pointer_size: int) -> int:
    """Put the description that hooks are given at the end of the data region; its address."""
    region = next(region for region in linked.regions if region.access is PageRights.DATA)
    raw = write_name(name)
    start = len(region.data) - description.size_of(pointer_size, functions, raw)
    table = linked.item.section(contents.FUNCS)
    at = linked.addresses[table.index] if table is not None else 0
    region.data[start:] = description.pack(pointer_size, region.address + start, raw, functions, at)
    return region.address + start


def _write(guest: PatchedGuest, placed: Placed) -> None:
    done = []
    try:
        for region in placed.regions:
            # Before it is touched, so that a failure halfway undoes it too.
            done.append(region)
            guest.pages.protect(region.address, len(region.data), region.access)
            guest.write_text(region.address, bytes(region.data), f"livepatch upload {placed.payload.name}")
    except BaseException:
        # Zeros, as an unload leaves.
        for region in done:
            guest.write_text(region.address, bytes(len(region.data)), "livepatch undo upload")
            guest.pages.protect(region.address, len(region.data), None)
        raise

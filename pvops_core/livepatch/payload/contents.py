"""What a linked payload says: build-ids, functions, hooks, exception table, metadata, symbols.

Source: check_patching_sections, check_special_sections, prepare_payload and build_symbol_table of
xen/common/livepatch.c; struct livepatch_func and livepatch_expectation of xen/include/public/sysctl.h and livepatch.h.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Collection, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import attrs

from pvops_core.livepatch.errors import LivepatchError
from pvops_core.livepatch.payload.area import PageRights
from pvops_core.livepatch.payload.model import OPAQUE_SIZE, PAYLOAD_VERSION, Function, HookPhase, Hooks
from pvops_core.livepatch.payload.objects import SHN_LORESERVE, SHN_UNDEF
from pvops_core.livepatch.payload.trampoline import ENDBR64, code_for, offset_of

if TYPE_CHECKING:
    from pvops_core.kinds import MachineKind
    from pvops_core.livepatch.payload.linking import Linked
    from pvops_core.livepatch.payload.objects import ObjectSection

FUNCS, DEPENDS, HOST_DEPENDS, BUILD_ID = (
    ".livepatch.funcs",
    ".livepatch.depends",
    ".livepatch.xen_depends",
    ".note.gnu.build-id",
)
HOOKS = ".livepatch.hooks."
MODINFO, EX_TABLE, ALT_CALLS, BUG_FRAMES = ".modinfo", ".ex_table", ".alt_call_sites", ".bug_frames."
FUNC = {64: struct.Struct("<QQQIIB39xB31s"), 32: struct.Struct("<IIIIIB39xB31s")}
"""``struct livepatch_func``: name, new_addr, old_addr, new_size, old_size, version, padding, expectation."""
# sizeof(struct bug_frame), and a call through memory: ff 15 and four bytes.
_BUG_FRAME, _INDIRECT_CALL = 8, 6
NT_GNU_BUILD_ID = 3
# KSYM_NAME_LEN of Xen is 127, without the NUL.
_NAME_LIMIT = 128
_STT_SECTION, _STT_FILE = 3, 4
_UNIQUE = (FUNCS, DEPENDS, HOST_DEPENDS, BUILD_ID, MODINFO, EX_TABLE, *(HOOKS + phase.value for phase in HookPhase))


@attrs.frozen
class Target:
    """The guest that a payload is read for.

    Attributes:
        kind: its machine.
        lookup: address of a symbol of the guest or of an earlier payload.
        function: address of a function to replace; LivepatchError where several have the name.
        read: bytes of its text; LivepatchError or PatchError where there is none.
    """

    kind: MachineKind
    lookup: Callable[[str], int | None]
    function: Callable[[str], int | None]
    read: Callable[[int, int], bytes]


def check_sections(linked: Linked) -> None:
    """check_patching_sections(): EINVAL unless what must be there is there once, and there is something to patch."""
    item = linked.item
    names = [section.name for section in item.sections]
    for name in _UNIQUE:
        # The first of two would be used in silence, so two are refused.
        if names.count(name) > 1:
            raise item.error("is there more than once", name)
    for name in (DEPENDS, HOST_DEPENDS, BUILD_ID):
        section = item.section(name)
        if section is None:
            raise item.error("is missing", name)
        if not section.loaded:
            raise item.error("is empty or not loaded", name)
    # A payload of hooks only is allowed; one of nothing is not.
    working = [s for s in item.sections if s.name == FUNCS or s.name.startswith(HOOKS)]
    if not working:
        raise item.error("nothing to patch: neither functions nor hooks", FUNCS)
    for section in working:
        if not section.loaded:
            raise item.error("is empty or not loaded", section.name)


def build_id(linked: Linked, name: str) -> bytes:
    """xen_build_id_check(): the build-id in a note section; EINVAL if it is damaged, ENODATA if it is another note."""
    item, data = linked.item, _section(linked, name)
    # More than the note's header, as xen_build_id_check() asks.
    if len(data) <= 12:
        raise item.error(f"{len(data)} bytes hold no note", name)
    owner_size, size, kind = struct.unpack_from("<III", data)
    # Owner padded to a word (gABI).
    start = 12 + (owner_size + 3 & ~3)
    if start + size > len(data):
        raise item.error(f"owner of {owner_size:#x} and id of {size:#x} bytes in {len(data):#x}", name)
    if kind != NT_GNU_BUILD_ID or data[12 : 12 + owner_size] != b"GNU\0":
        raise item.error("is no GNU build-id", name, errno.ENODATA)
    if not size:
        raise item.error("has no bytes", name)
    return data[start : start + size]


def _section(linked: Linked, name: str) -> bytes:
    section = linked.item.section(name)
    return linked.section_bytes(section) if section is not None and section.loaded else b""


def functions(linked: Linked, target: Target) -> tuple[Function, ...]:
    """prepare_payload(): the functions to replace.

    Raises:
        PayloadError: with the errno of prepare_payload, and EINVAL for two that overlap.
    """
    data, form = _section(linked, FUNCS), FUNC[linked.item.bits]
    if len(data) % form.size:
        raise linked.item.error(f"{len(data):#x} bytes are no whole number of {form.size}", FUNCS)
    found = []
    for index, fields in enumerate(form.iter_unpack(data)):
        field = f"{FUNCS}[{index}]"
        try:
            found.append(_function(linked, target, field, *fields))
        except LivepatchError as error:
            raise linked.item.error(error.message, field, error.errno) from error
    _refuse_overlaps(linked, found)
    return tuple(found)


def _function(
    linked: Linked,
    target: Target,
    field: str,
    name_at: int,
    new: int,
    old: int,
    new_size: int,
    old_size: int,
    version: int,
    expectation: int,
    data: bytes,
) -> Function:
    if version != PAYLOAD_VERSION:
        raise LivepatchError(f"has version {version}, not {PAYLOAD_VERSION}", errno=errno.EOPNOTSUPP)
    name = _name(linked, name_at, field)
    if not old_size:
        raise LivepatchError(f"{name}: old_size is zero")
    # Given by name, unless the name means several functions.
    if not old:
        found = target.function(name)
        if found is None:
            raise LivepatchError(f"could not resolve old address of {name}", errno=errno.ENOENT)
        old = found
    # An address that is not the payload's own would send the guest anywhere.
    if new and linked.region(new, PageRights.TEXT) is None:
        raise LivepatchError(f"{name}: new_addr {new:#x} is not in the payload's text")
    # Enough to see endbr64 and as much as an expectation has.
    begin = _text(target, name, old, min(old_size, OPAQUE_SIZE))
    offset = offset_of(target.kind, begin, new)
    code = code_for(target.kind, old, old_size, offset, new, new_size)
    return Function(name, old, old_size, offset, new, code, _expected(name, old_size, expectation, data))


def _text(target: Target, name: str, address: int, length: int) -> bytes:
    try:
        return target.read(address, max(length, len(ENDBR64)))
    except LivepatchError as error:
        raise LivepatchError(f"{name}: old_addr {address:#x} is no text ({error.message})") from error


def _expected(name: str, old_size: int, word: int, data: bytes) -> bytes:
    """``struct livepatch_expectation``: bit 0 enabled, then five of length and two reserved."""
    enabled, length, reserved = word & 1, word >> 1 & 31, word >> 6
    if not enabled:
        return b""
    if reserved:
        raise LivepatchError(f"{name}: reserved bits of the expectation are set")
    if length > OPAQUE_SIZE:
        raise LivepatchError(f"{name}: {length} bytes are expected", errno=errno.EOVERFLOW)
    # Bytes behind the function are somebody else's.
    if old_size < length:
        raise LivepatchError(f"{name}: {length} bytes are expected of a function of {old_size}", errno=errno.ERANGE)
    return data[:length]


def _name(linked: Linked, address: int, field: str) -> str:
    region = linked.region(address)
    if region is None:
        raise linked.item.error(f"its name at {address:#x} is not in the payload", field)
    start = address - region.address
    # A name that is too long is not cut: it would name something else.
    end = region.data.find(b"\0", start, start + _NAME_LIMIT)
    if end <= start:
        raise linked.item.error("its name is empty or does not end", field)
    return region.data[start:end].decode("utf-8", "replace")


def _refuse_overlaps(linked: Linked, found: list[Function]) -> None:
    # In order of address: only neighbours can overlap.
    ordered = sorted(found, key=lambda function: function.place)
    for first, second in pairwise(ordered):
        if first.place + len(first.new) > second.place:
            raise linked.item.error(f"{first.name} and {second.name} overlap", FUNCS)


def hooks(linked: Linked) -> Hooks:
    """The hooks; EINVAL for a table of the wrong size, a second one of a single hook, or one outside of the text."""
    found = {}
    size = linked.item.bits // 8
    for phase in HookPhase:
        name = HOOKS + phase.value
        data = _section(linked, name)
        if len(data) % size:
            raise linked.item.error(f"{len(data):#x} bytes are no whole number of pointers", name)
        addresses = tuple(int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size))
        # Single hooks are pointers, not tables (struct livepatch_hooks).
        if phase not in {HookPhase.LOAD, HookPhase.UNLOAD} and len(addresses) > 1:
            raise linked.item.error(f"there are {len(addresses)}; one is allowed", name)
        for address in addresses:
            if linked.region(address, PageRights.TEXT) is None:
                raise linked.item.error(f"{address:#x} is not in the payload's text", name)
        if addresses:
            found[phase] = addresses
    return Hooks(found)


def exception_table(linked: Linked) -> dict[int, int]:
    """``.ex_table``: address of an instruction that may fault to where to go on; both as distances from themselves."""
    data, section = _section(linked, EX_TABLE), linked.item.section(EX_TABLE)
    if section is None or not data:
        return {}
    if len(data) % 8:
        raise linked.item.error(f"{len(data):#x} bytes are no whole number of entries", EX_TABLE)
    start, mask, found = linked.addresses[section.index], (1 << linked.item.bits) - 1, {}
    # Both distances are from their own field, as in the guest's table.
    for index, (at, on) in enumerate(struct.iter_unpack("<ii", data)):
        place = start + 8 * index
        fault, fixup = place + at & mask, place + 4 + on & mask
        for address in (fault, fixup):
            if linked.region(address, PageRights.TEXT) is None:
                raise linked.item.error(f"{address:#x} is not in the payload's text", f"{EX_TABLE}[{index}]")
        found[fault] = fixup
    return found


def check_special(linked: Linked) -> None:
    """check_special_sections(): EINVAL unless tables that are placed and not used hold whole entries, of own text.

    Source: struct alt_call (a distance) and struct bug_frame (two words) of xen/arch/x86/include/asm.
    """
    item = linked.item
    for section in item.sections:
        if not section.loaded:
            continue
        if section.name.startswith(BUG_FRAMES) and section.size % _BUG_FRAME:
            raise item.error(f"{section.size:#x} bytes are no whole number of frames", section.name)
        if section.name == ALT_CALLS:
            _check_calls(linked, section)


def _check_calls(linked: Linked, section: ObjectSection) -> None:
    data, start = linked.section_bytes(section), linked.addresses[section.index]
    # A distance of four bytes each.
    if len(data) % 4:
        raise linked.item.error(f"{len(data):#x} bytes are no whole number of entries", ALT_CALLS)
    for index, (distance,) in enumerate(struct.iter_unpack("<i", data)):
        place = start + 4 * index + distance & (1 << linked.item.bits) - 1
        region = linked.region(place, PageRights.TEXT)
        if region is None or place + _INDIRECT_CALL > region.end:
            raise linked.item.error(f"{place:#x} is not in the payload's text", f"{ALT_CALLS}[{index}]")


def new_symbols(linked: Linked, replaced: Collection[int], lookup: Callable[[str], int | None]) -> dict[str, int]:
    """build_symbol_table(): what a payload adds, those it defines in loaded sections and that replace no function.

    Raises:
        PayloadError: EEXIST, the guest or an earlier payload has one of that name.
    """
    found: dict[str, int] = {}
    for index, name, address in _defined(linked):
        # A replacement has the old function's name, which is no duplicate.
        if address in replaced:
            continue
        if lookup(name) is not None:
            raise linked.item.error("duplicates a symbol that there is", f"symbol[{index}] {name}", errno.EEXIST)
        found.setdefault(name, address)
    return found


def _defined(linked: Linked) -> Iterator[tuple[int, str, int]]:
    for index, symbol in enumerate(linked.item.symbols):
        # Xen asks is_payload_symbol(): names of sections, files and labels are of no use to later payloads.
        if symbol.type in {_STT_SECTION, _STT_FILE} or not symbol.name or symbol.name.startswith(".L"):
            continue
        if SHN_UNDEF < symbol.section < SHN_LORESERVE and symbol.section in linked.addresses:
            yield index, symbol.name, linked.symbols[index]


def metadata(linked: Linked) -> bytes:
    """``.modinfo`` as it is."""
    section: ObjectSection | None = linked.item.section(MODINFO)
    return section.data if section is not None else b""

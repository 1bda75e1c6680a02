"""What a recorded boot is written as: ``pvops-oracle/1`` of a kernel with a paravirt step, else ``pvops-oracle/2``.

:mod:`pvops_core.patching.bootrecords` reads it. Columns are in the order of the kernel's sections of records.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Final

from pvops_core.patching.altinstructions.alternatives import overlapping
from pvops_core.patching.fills import BUG_NAMES, NOP_NAMES

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.patching.altinstructions.alternatives import AltEntry
    from pvops_core.recording.moments import RecordedStops, WatchedKernel

SPECIAL: Final = (*NOP_NAMES, *BUG_NAMES, "_paravirt_ident_64", "paravirt_ret0")
"""Functions of which a record says where they are."""

MOMENTS: Final = ("start", "enter", "end", "init")
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


class _Numbers(dict[Any, int]):
    """Things numbered as they are first seen."""

    def of(self, thing: Hashable) -> int:
        return self.setdefault(thing, len(self))


def describe(subject: WatchedKernel, seen: RecordedStops) -> dict[str, Any]:
    """A record, but for what it says of the boot: its name and the command.

    Args:
        subject: the kernel.
        seen: what was read while it booted.
    """
    image = subject.image
    two_steps = "paravirt" in seen.sites
    places = [site.address for site in subject.sites] + [group.address for group in subject.groups]
    sections = sorted({_section(image, address) for address in places})
    tables = {
        slot.symbol: address - slot.offset for slot, address in zip(subject.layout.slots, subject.slots, strict=True)
    }
    document = {
        "format": "pvops-oracle/1" if two_steps else "pvops-oracle/2",
        "vmlinux_sha256": image.sha256,
        "license": "snippets of GPL-2.0 Linux text",
        "ptr": image.pointer_size,
        "pv_ops_va": f"{subject.slots[0]:#x}",
        "tables": {symbol: f"{address:#x}" for symbol, address in tables.items()},
        "special": {name: f"{image.symbols[name]:#x}" for name in SPECIAL if name in image.symbols},
        "ops": [
            [slot.path, f"{target:#x}", _name(image, target)]
            for slot, target in zip(subject.layout.slots, seen.table, strict=True)
        ],
        "secs": sections,
        **_sites(subject, seen, sections),
        "alternatives": _groups(subject, seen, sections),
        "log": [[name, f"{address:#x}"] for name, address in seen.log],
    }
    if seen.boot_cpu_data:
        document["boot_cpu_data_head"] = seen.boot_cpu_data.hex()
    return document


def _name(image: KernelImage, target: int) -> str | None:
    found = image.symbol_at(target) if target else None
    return found[0] if found is not None and not found[1] else None


def _section(image: KernelImage, address: int) -> str:
    section = image.section_at(address)
    return section.name if section is not None else ""


def _sites(subject: WatchedKernel, seen: RecordedStops, sections: Sequence[str]) -> dict[str, Any]:
    sites, kinds = subject.sites, _Numbers()
    other = _others(subject)
    found: dict[str, Any] = {
        **_where([site.address for site in sites]),
        "sec": "".join(_DIGITS[sections.index(site.section)] for site in sites),
        "type": [site.type for site in sites],
        "len": [site.length for site in sites],
        "alt": [kinds.of(_kind(subject.image, other[site.address])) if site.address in other else -1 for site in sites],
        "file": b"".join(subject.image.read(site.address, site.length) for site in sites).hex(),
    }
    found["alt_kinds"] = [{"feat": feature, "not": inverted, "repl": code} for feature, inverted, code in kinds]
    if "paravirt" in seen.sites:
        found["pv"] = b"".join(seen.sites["paravirt"]).hex()
    return found | {"final": b"".join(seen.sites["final"]).hex()}


def _others(subject: WatchedKernel) -> dict[int, AltEntry]:
    """By the address of a site the last entry over it that is no direct call."""
    spans = [(site.address, site.address + site.length) for site in subject.sites]
    touching = overlapping(subject.groups, spans)
    return {group.address: entry for group in touching for entry in group.entries if not entry.direct}


def _kind(image: KernelImage, entry: AltEntry) -> tuple[int, bool, str]:
    return entry.feature, entry.inverted, _replacement(image, entry)


def _replacement(image: KernelImage, entry: AltEntry) -> str:
    length = entry.replacement_length
    return image.read(entry.replacement, length).hex() if length else ""


def _groups(subject: WatchedKernel, seen: RecordedStops, sections: Sequence[str]) -> dict[str, Any]:
    image, groups, kinds = subject.image, subject.groups, _Numbers()
    files = [image.read(group.address, group.length) for group in groups]
    finals = [code or b"" for code in seen.groups["final"]]
    found: dict[str, Any] = {
        "entries": sum(len(group.entries) for group in groups),
        **_where([group.address for group in groups]),
        "sec": "".join(_DIGITS[sections.index(_section(image, group.address))] for group in groups),
        "len": [group.length for group in groups],
        "kind": [kinds.of(tuple(_shape(entry) for entry in group.entries)) for group in groups],
        "repl": ["/".join(_replacement(image, entry) for entry in group.entries) for group in groups],
        "repl_va": [[f"{entry.replacement:#x}" for entry in group.entries] for group in groups],
        "file": b"".join(files).hex(),
        "final": b"".join(finals).hex(),
    }
    names_of_shape = ("feat", "flags", "len", "repl_len")
    found["kinds"] = [[dict(zip(names_of_shape, shape, strict=True)) for shape in kind] for kind in kinds]
    for moment in MOMENTS:
        if moment in seen.groups:
            # Until alternatives are applied all stands as in the file, then as at the end; only what differs is
            # written.
            expected = files if moment in {"start", "enter"} else finals
            found[f"{moment}_differs"] = _unlike(seen.groups[moment], expected)
    return found


def _shape(entry: AltEntry) -> tuple[int, int, int, int]:
    """Feature, flags (1 inverted, 2 a direct call), length and length of the replacement."""
    return entry.feature, entry.inverted | entry.direct << 1, entry.length, entry.replacement_length


def _unlike(found: Sequence[bytes | None], expected: Sequence[bytes]) -> list[list[Any]]:
    pairs = enumerate(zip(found, expected, strict=True))
    return [[index, code.hex()] for index, (code, other) in pairs if code is not None and code != other]


def _where(addresses: list[int]) -> dict[str, Any]:
    steps = [address - before for before, address in zip(addresses[:1] + addresses[:-1], addresses, strict=True)]
    return {"n": len(addresses), "va0": f"{addresses[0]:#x}" if addresses else "0x0", "dva": steps}

"""``pvops patch --against``: what a recorded boot made of a kernel's text, beside what was worked out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from pvops_core.cli.common import symbol_json
from pvops_core.patching.findings import Against, UnlikePlace, UnlikeSite, UnlikeSlot

if TYPE_CHECKING:
    from pvops_core.patching.altinstructions.whole import AlternativesPlan
    from pvops_core.patching.bootrecords import BootRecord
    from pvops_core.patching.kernel import KernelPlan, PatchStep

SHOWN: Final = 10
"""Differences of a kind that are printed; all of them are in the JSON."""


def hold_against(plan: KernelPlan, whole: AlternativesPlan | None, record: BootRecord) -> Against:
    """The ``against`` member of the result.

    Args:
        plan: what was worked out of the sites.
        whole: of all other places; None where nobody asked for them.
        record: of a boot of the same kernel.
    """
    table = _table(plan, record)
    sites = tuple(difference for step in plan.steps for difference in _sites(plan, step, record))
    places = _places(plan, whole, record) if whole is not None and record.alternatives else None
    return Against(record.path, record.run, not (table or sites or places), table, sites, places)


def _table(plan: KernelPlan, record: BootRecord) -> tuple[UnlikeSlot, ...]:
    """The slots of the table; a record with more or fewer differs in those as well."""
    image, slots = plan.kernel.image, plan.kernel.layout.slots
    size = max(len(plan.table), len(record.table))
    pairs = zip(_padded(plan.table, size), _padded(record.table, size), strict=True)
    return tuple(
        UnlikeSlot(
            op=slots[type_].path if type_ < len(slots) else f"type {type_}",
            predicted=symbol_json(image, planned) if planned else None,
            recorded=symbol_json(image, found) if found else None,
        )
        for type_, (planned, found) in enumerate(pairs)
        if planned != found
    )


def _padded(table: tuple[int, ...], size: int) -> tuple[int | None, ...]:
    return table + (None,) * (size - len(table))


def _sites(plan: KernelPlan, step: PatchStep, record: BootRecord) -> list[UnlikeSite]:
    slots, recorded = plan.kernel.layout.slots, dict(record.sites.get(step, {}))
    found = []
    for planned in plan.sites:
        site, predicted = planned.site, getattr(planned, step)
        code = recorded.pop(site.address, None)
        if code != predicted:
            found.append(UnlikeSite(_difference(plan, site.address, predicted, code), step, slots[site.type].path))
    found += [UnlikeSite(_difference(plan, address, None, code), step, None) for address, code in recorded.items()]
    return found


def _places(plan: KernelPlan, whole: AlternativesPlan, record: BootRecord) -> tuple[UnlikePlace, ...]:
    """Places after alternatives, and again at the end where they were right before."""
    finals = {planned.group.address: planned.final for planned in whole.groups}
    found: list[UnlikePlace] = []
    for address in dict.fromkeys((*finals, *record.alternatives)):
        steps = ((finals, record.alternatives), (whole.ends, record.ends))
        pairs = ((planned.get(address), recorded.get(address)) for planned, recorded in steps)
        found += [_difference(plan, address, *pair) for pair in pairs if pair[0] != pair[1]][:1]
    return tuple(found)


def _difference(plan: KernelPlan, address: int, predicted: bytes | None, recorded: bytes | None) -> UnlikePlace:
    return UnlikePlace(
        address=f"{address:#x}",
        symbol=symbol_json(plan.kernel.image, address),
        predicted=predicted.hex() if predicted is not None else None,
        recorded=recorded.hex() if recorded is not None else None,
    )


def show(result: Against) -> None:
    """Print how it came out, and the first differences."""
    counts = {"slots": result.table, "sites": result.sites, "other places": result.alternatives}
    said = [f"{len(found)} {what}" for what, found in counts.items() if found]
    outcome = f"{', '.join(said)} differ" if said else "no difference"
    sys.stdout.write(f"against {result.record}: {outcome}\n")
    for slot in result.table[:SHOWN]:
        sys.stdout.write(f"  {slot.op}: {slot.predicted or '-'}, recorded {slot.recorded or '-'}\n")
    for found in (tuple(each.place for each in result.sites), result.alternatives or ()):
        for each in found[:SHOWN]:
            place = f"{each.address} {each.symbol}"
            sys.stdout.write(f"  {place}: {each.predicted or '-'}, recorded {each.recorded or '-'}\n")

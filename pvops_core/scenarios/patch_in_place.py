"""Summer 2007: code that patches code which it is itself made of, and the buffer that nobody filled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.scenarios.acts import Act, Check, Commit, Role, unlike_history, works
from pvops_core.scenarios.kernels import patch_in_place as kernel
from pvops_core.scenarios.model import Scenario
from pvops_core.scenarios.places import as_built, at_end, op_of, symbolic, target_of_call
from pvops_core.x86 import PF

if TYPE_CHECKING:
    from pvops_core.patching.sites import SiteRecord
    from pvops_core.scenarios.stage import Stage, StagedRun
    from pvops_core.scenarios.witness import Fault

LAYOUT: Final = "2.6.23-lapic-pae"
CALL: Final = 5
LONGEST_NOP: Final = 8
POKES: Final = "text_poke_checked"  # the function of the guest that looks whether it may write, then writes
_TWO_STAGES = "two-stage patching"
_UNINITIALISED = "one poke, from a buffer that nobody filled"
_FOLLOWING: Final = 6  # bytes shown after a site


def play(stage: Stage) -> Iterator[Act]:
    """Two-stage patching on xen and on native, then the uninitialised buffer, then the way it has been done since."""
    yield two_stages(stage.run(LAYOUT, "xen", "patch=two-stage"))
    yield two_stages_on_native(stage.run(LAYOUT, "native", "patch=two-stage"))
    fixed = stage.run(LAYOUT, "xen")
    yield uninitialised(stage.run(LAYOUT, "xen", "patch=uninitialised"), fixed)
    yield in_one_piece(fixed)


# Two stages ----------------------------------------------------------------------------------------------------------


def two_stages(run: StagedRun) -> Act:
    """The guest must have died inside a site of which one part was new and the rest old."""
    fault = run.faults[-1] if run.faults else None
    site = run.site_at(fault.rip) if fault else None
    if fault is None or site is None:
        return unlike_history(_TWO_STAGES, run, "the guest dies inside a site that is being patched")
    return _half_patched(run, fault, site)


def _half_patched(run: StagedRun, fault: Fault, site: SiteRecord) -> Act:
    op = op_of(run.guest, site)
    now, built = run.now(site.address, site.length), run.built(site.address, site.length)
    used = fault.rip - site.address
    shown = site.length + _FOLLOWING
    where = _function(run, site)
    return Act(
        Role.OLD,
        f"{_TWO_STAGES}: {run.title}",
        run.ending,
        checks=(
            Check("the guest crashes", run.crashed),
            Check("with a page fault in its own text", fault.vector == PF and run.in_text(fault.rip)),
            Check("RIP lies inside a site, behind the new call", used == CALL < site.length),
            Check("the site's first bytes are new", now[:used] != built[:used] and now[0] == 0xE8),
            Check("its last bytes are old", now[used:] == built[used:]),
            Check("the site belongs to the function that pokes", where == POKES),
        ),
        story=(
            (
                f"The patcher wrote {used} bytes of new code over the {site.length}-byte call of {op} at "
                f"{symbolic(run, site.address)} and then asked for a nop of {site.length - used} behind them."
            ),
            (
                f"The poke that writes nops looks first whether the page is writable. That walk calls {op} through "
                f"this very site: the new call returns to {fault.rip:#x}, where the old call's last byte still stands "
                "and takes the next instructions for its operands."
            ),
            f"The guest died there of a page fault at {fault.address or 0:#x}, error code {fault.error_code or 0:#x}.",
        ),
        facts={
            "rip": f"{fault.rip:#x}",
            "fault_vector": fault.vector,
            "fault_address": f"{fault.address or 0:#x}",
            "error_code": fault.error_code,
            "op": op,
            "site": f"{site.address:#x}",
            "site_length": site.length,
            "function": where,
            "bytes_built": built.hex(" "),
            "bytes_at_crash": now.hex(" "),
        },
        listings=(
            as_built(run, "as built", site.address, shown),
            at_end(run, "at the time of the crash", site.address, shown),
        ),
    )


def two_stages_on_native(run: StagedRun) -> Act:
    """Bare metal's conversions are nops, and a site of six bytes becomes a nop in one piece."""
    walked = [site for site in run.guest.sites if _function(run, site) == POKES]
    ops = sorted({op_of(run.guest, site) for site in walked})
    lengths = {site.length for site in walked}
    whole = all(target_of_call(site.address, run.now(site.address, 5), 32) is None for site in walked)
    return works(
        Role.ELSEWHERE,
        _TWO_STAGES,
        run,
        (
            (
                f"The walk calls {', '.join(ops)}. On bare metal they give back their argument: native_patch uses no "
                f"byte of their {len(walked)} sites in {POKES}, and all {max(lengths, default=0)} bytes of each are "
                "filled by one nop. There is no moment at which the walk finds half a site."
            ),
        ),
        [
            Check("no site that the walk goes through became a call", bool(walked) and whole),
            Check("each fits into one nop", max(lengths, default=0) <= LONGEST_NOP),
        ],
    )


def _function(run: StagedRun, site: SiteRecord) -> str:
    found = run.guest.image.symbol_at(site.address)
    return found[0] if found else ""


# The buffer ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Garbage:
    """Sites that hold what the stack held.

    Attributes:
        declined: sites that the patcher left alone, by the fixed run.
        wrong: those of them that hold something else here.
        leftovers: those of the wrong that begin with the code of the site patched before them.
    """

    declined: tuple[SiteRecord, ...]
    wrong: tuple[SiteRecord, ...]
    leftovers: tuple[SiteRecord, ...]


def garbage(run: StagedRun, fixed: StagedRun) -> Garbage:
    """Compare sites with those of a run that left alone what it was told to leave alone."""
    sites = run.guest.sites
    declined = [site for site in sites if _bytes(fixed, site) == run.built(site.address, site.length)]
    wrong = [site for site in declined if _bytes(run, site) != _bytes(fixed, site)]
    before = dict(zip(sites[1:], sites, strict=False))
    leftovers = [site for site in wrong if site in before and _bytes(run, site)[:5] == _bytes(run, before[site])[:5]]
    return Garbage(tuple(declined), tuple(wrong), tuple(leftovers))


def _bytes(run: StagedRun, site: SiteRecord) -> bytes:
    return run.now(site.address, site.length)


def uninitialised(run: StagedRun, fixed: StagedRun) -> Act:
    """The guest must have gone astray from a site that was to be left alone and holds the stack's garbage."""
    found = garbage(run, fixed)
    back = run.stack[0] if run.stack else 0
    site = next((site for site in found.wrong if back and site.address < back <= site.address + site.length), None)
    if site is None:
        return unlike_history(_UNINITIALISED, run, "the guest strays from a site that holds the stack's garbage")
    guest, op, now = run.guest, op_of(run.guest, site), _bytes(run, site)
    target = target_of_call(site.address, now, guest.kind.bits)
    others = [each for each in guest.sites if each not in found.wrong]
    return Act(
        Role.OLD,
        f"{_UNINITIALISED}: {run.title}",
        run.ending,
        checks=(
            Check("the guest crashes", run.crashed),
            Check("every site that the patcher declined holds garbage", found.wrong == found.declined),
            Check("all other sites are as in the fixed run", all(_bytes(run, s) == _bytes(fixed, s) for s in others)),
            Check("the return address lies in such a site", site in found.wrong),
            Check("its bytes lead to where RIP stands", target == run.rip),
            Check("where no op's gate begins", run.rip not in run.gates),
        ),
        story=(
            (
                f"The patcher declined {len(found.declined)} of {len(guest.sites)} sites, saying so by giving back "
                "their length. The buffer was then written over them as it was: with what the stack held."
            ),
            (
                f"In {len(found.leftovers)} of them that is the code of the site patched before, whose call is right "
                "at that site's address and at no other."
            ),
            f"The guest executed the one of {op} at {symbolic(run, site.address)}: its call leads to {run.rip:#x}.",
        ),
        facts={
            "sites": len(guest.sites),
            "declined": len(found.declined),
            "garbage": len(found.wrong),
            "code_of_the_site_before": len(found.leftovers),
            "rip": f"{run.rip:#x}",
            "return_address": f"{back:#x}",
            "op": op,
            "site": f"{site.address:#x}",
            "site_length": site.length,
            "bytes_built": run.built(site.address, site.length).hex(" "),
            "bytes_at_crash": now.hex(" "),
            "bytes_when_fixed": _bytes(fixed, site).hex(" "),
        },
        listings=(
            at_end(fixed, "as built, and as the fixed patcher leaves it", site.address, site.length),
            at_end(run, "at the time of the crash", site.address, site.length),
        ),
    )


def in_one_piece(run: StagedRun) -> Act:
    """What has been done since: the buffer begins as a copy of the site and is written at once."""
    changed = sum(_bytes(run, site) != run.built(site.address, site.length) for site in run.guest.sites)
    kept = len(run.guest.sites) - changed
    return works(
        Role.FIXED,
        "one poke, from a buffer that begins as a copy of the site",
        run,
        (f"{changed} sites are new, {kept} that the patcher declined are as they were built.",),
        [Check("the patcher declined sites here too, and they are whole", kept > 0)],
    )


SCENARIO: Final = Scenario(
    name="patch-in-place",
    summary="two-stage patching whose nop step calls the op being patched, and the uninitialised buffer that followed",
    commits=(
        Commit("19d36ccdc34f", "July 2007", "text_poke looks up the page that it writes to, through pgd_val"),
        Commit("ab144f5ec64c", "August 2007", "patch into a buffer and poke once; the buffer is not initialised"),
        Commit("d34fda4a84c1", "August 2007", "copy the original bytes into the buffer first"),
    ),
    play=play,
    on_kernel=kernel.play,
)

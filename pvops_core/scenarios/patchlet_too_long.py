"""The rule of 2019, that a patchlet is no longer than the call it replaces, and what comes of one that is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.backends import load_backends
from pvops_core.ops import LAYOUTS
from pvops_core.patching.code.disasm import listing
from pvops_core.patching.patchlets import select
from pvops_core.scenarios import too_long
from pvops_core.scenarios.acts import Act, Check, Commit, Role, unlike_history, works
from pvops_core.scenarios.kernels import patchlet_too_long as kernel
from pvops_core.scenarios.model import Scenario
from pvops_core.scenarios.places import as_built, at_end, code, op_of, symbolic

if TYPE_CHECKING:
    from pvops_core.errors import PluginError
    from pvops_core.patching.sites import SiteRecord
    from pvops_core.scenarios.stage import Stage, StagedRun
    from pvops_core.scenarios.witness import Fault

LAYOUT: Final = "6.1-64"
CMDLINE: Final = "noreplace-alternatives"  # they would be written over what the patcher inlined
SIZE: Final = too_long.PATCHLET.size
_FOLLOWING: Final = 12  # bytes shown after a site
_LONGEST_INSTRUCTION: Final = 15
_REPORTED = "a patcher that uses more bytes than the site has, and says so"
_OVERRUN = "a patcher that writes in place and does not look at the length"


def play(stage: Stage) -> Iterator[Act]:
    """Three patchers that nobody checked, then the check, then a patchlet that fits."""

    def unchecked(ops: type[too_long.LongPatcher]) -> StagedRun:
        return stage.run(LAYOUT, too_long.backend_with(ops), CMDLINE)

    yield left_alone(unchecked(too_long.LongPatcher))
    yield reported(unchecked(too_long.Reporting))
    yield overrun(unchecked(too_long.Overrunning))
    yield refused(load_backends([f"{too_long.__name__}:backend"], environ={}).errors)
    yield fitting(stage)


def _sites(run: StagedRun) -> list[SiteRecord]:
    return [site for site in run.guest.sites if op_of(run.guest, site) == too_long.OP]


def _whole(run: StagedRun, site: SiteRecord) -> bool:
    return run.now(site.address, site.length) == run.built(site.address, site.length)


def left_alone(run: StagedRun) -> Act:
    """What ``paravirt_patch_insns`` makes of it: the length of the site is given back, and the call stays."""
    sites = _sites(run)
    return works(
        Role.ELSEWHERE,
        "a patcher that leaves alone what does not fit, as paravirt_patch_insns does",
        run,
        (
            (
                f"A patchlet of {SIZE} bytes for {too_long.OP} does not fit into {len(sites)} sites of "
                f"{sites[0].length} bytes. They keep their calls: no harm, and no use."
            ),
        ),
        [Check("every site of the op is as built", bool(sites) and all(_whole(run, site) for site in sites))],
    )


def reported(run: StagedRun) -> Act:
    """The kernel's ``BUG_ON(used > len)``, at the first site of the op."""
    sites = list(run.guest.sites)
    first = sites.index(_sites(run)[0])
    site = sites[first]
    return Act(
        Role.OLD,
        f"{_REPORTED}: {run.title}",
        run.ending,
        checks=(
            Check("the guest crashes", run.crashed),
            Check("by the BUG of its own loop over the sites", "BUG" in run.panic and "used > site->len" in run.panic),
            Check("the sites before the op's first were patched", not any(_whole(run, each) for each in sites[:first])),
            Check("that one and all after it were not", all(_whole(run, each) for each in sites[first:])),
        ),
        story=(
            (
                f"The kernel asks its patcher for the code of {too_long.OP} at {symbolic(run, site.address)}: "
                f"{SIZE} bytes used of {site.length}."
            ),
            f"Nothing is written and nothing can go on: {run.panic}.",
        ),
        facts={
            "op": too_long.OP,
            "site": f"{site.address:#x}",
            "site_length": site.length,
            "used": SIZE,
            "sites_patched_before": first,
            "panic": run.panic,
        },
        listings=(code(run.guest, "the patchlet", site.address, too_long.PATCHLET.assemble(site.address, {}), SIZE),),
    )


def overrun(run: StagedRun) -> Act:
    """The guest must have executed the remains of an instruction that the patchlet's end was written over."""
    found = next(((fault, site) for fault in run.faults if (site := _overrun_site(run, fault))), None)
    if found is None:
        return unlike_history(_OVERRUN, run, "the guest executes what is left of an overwritten instruction")
    return _overrun(run, *found)


def _overrun_site(run: StagedRun, fault: Fault) -> SiteRecord | None:
    """The site of the op behind whose end a fault's RIP lies, where no instruction began as built."""
    for site in _sites(run):
        beyond = fault.rip - (site.address + site.length)
        if 0 <= beyond < SIZE - site.length + _LONGEST_INSTRUCTION and fault.rip not in _starts(run, site):
            return site
    return None


def _starts(run: StagedRun, site: SiteRecord) -> set[int]:
    # From the site on, where an instruction is known to begin.
    built = run.built(site.address, SIZE + 3 * _LONGEST_INSTRUCTION)
    return {address for address, _raw, _text in listing(built, site.address, run.guest.kind.bits)}


def _overrun(run: StagedRun, fault: Fault, site: SiteRecord) -> Act:
    guest, end, spill = run.guest, site.address + site.length, SIZE - site.length
    hit = run.site_at(end)
    shown = site.length + _FOLLOWING
    after = [text for where, _raw, text in listing(run.built(end, 15), end, guest.kind.bits) if where == end]
    return Act(
        Role.OLD,
        f"{_OVERRUN}: {run.title}",
        run.ending,
        checks=(
            Check("the guest crashes", run.crashed),
            Check(
                "the bytes after the site are no longer those it was built with",
                run.now(end, spill) != run.built(end, spill),
            ),
            Check(
                "an exception's RIP lies there, at no instruction of the guest's", fault.rip not in _starts(run, site)
            ),
        ),
        story=(
            f"{SIZE} bytes were written over the {site.length} of {too_long.OP} at {symbolic(run, site.address)}: "
            f"the last {spill} lie on the instruction after it, {''.join(after[:1])}."
            + (
                f" That is a call of {op_of(guest, hit)}, patched next: its new code lies on the patchlet's end."
                if hit
                else ""
            ),
            (
                f"What is left of it is executed as something else: exception {fault.vector} at RIP {fault.rip:#x}, "
                f"{fault.rip - end} bytes behind the site, where the guest as built has no instruction."
            ),
        ),
        facts={
            "op": too_long.OP,
            "site": f"{site.address:#x}",
            "site_length": site.length,
            "written": SIZE,
            "overrun": spill,
            "overrun_instruction": "".join(after[:1]),
            "rip": f"{fault.rip:#x}",
            "fault_vector": fault.vector,
            "bytes_built": run.built(site.address, shown).hex(" "),
            "bytes_at_crash": run.now(site.address, shown).hex(" "),
        },
        listings=(
            as_built(run, "as built", site.address, shown),
            at_end(run, "at the time of the crash", site.address, shown),
        ),
    )


def refused(errors: tuple[PluginError, ...]) -> Act:
    """The same backend as a plugin: its patchlet is measured before anything of it is used."""
    mine = [error for error in errors if too_long.__name__ in error.distribution]
    text = mine[0].message if mine else ""
    return Act(
        Role.FIXED,
        "the same backend, loaded as a plugin",
        f"not loaded: {text}" if mine else "loaded",
        checks=(
            Check("the plugin is refused", len(mine) == 1),
            Check("the error names the op", bool(mine) and mine[0].hook == too_long.OP),
            Check("and the bytes", too_long.PATCHLET.template.code.hex(" ") in text),
            Check("and the reason", f"{SIZE} bytes do not fit into a site of 6" in text),
        ),
        story=("Patchlets are measured when their backend is loaded. No guest runs with this one.",),
        facts={"op": mine[0].hook if mine else "", "reason": text},
    )


def fitting(stage: Stage) -> Act:
    """Bare metal's own patchlet for the op, on the same guest."""
    run = stage.run(LAYOUT, "native")
    own = select(stage.installed("native").patchlets, LAYOUTS[LAYOUT]).get(too_long.OP)
    sites, size = _sites(run), own.size if own else 0
    inlined = [site for site in sites if own and run.now(site.address, size) == own.assemble(site.address, {})]
    act = works(
        Role.FIXED,
        "a patchlet that fits",
        run,
        (
            (
                f"native's patchlet for {too_long.OP}, {own.asm if own else 'none'}, has {size} "
                f"byte{'s' if size != 1 else ''}: it stands at {len(inlined)} of {len(sites)} sites."
            ),
        ),
        [
            Check("its patchlet is no longer than a site", 0 < size <= min(site.length for site in sites)),
            Check("it stands at every site", len(inlined) == len(sites)),
        ],
    )
    return attrs.evolve(act, facts={**act.facts, "patchlet_size": size, "inlined": len(inlined)})


SCENARIO: Final = Scenario(
    name="patchlet-too-long",
    summary="a patchlet with more bytes than the call it replaces: a BUG, an overrun, and the check that refuses it",
    commits=(
        Commit("139ec7c41624", "December 2006", "patchers write in place, and each looks at the length itself"),
        Commit("ab144f5ec64c", "August 2007", "patch into a buffer; BUG_ON(used > len)"),
        Commit("0b9d2fc1d0d6", "April 2019", "patchlets are tables of bytes, which can be measured"),
    ),
    play=play,
    on_kernel=kernel.play,
)

"""A real kernel that patches itself in two stages, and one whose buffer nobody filled: its own loop over its own sites.

Kernels since August 2007 fill a buffer that begins as a copy of the site, and poke it once. Here it is done as before:
new code is written over the site, and the page looked up as ``text_poke`` did for some days of July 2007, before
anything is written behind it; or the buffer gets back what it held after the site before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from pvops_core.patching.patchdefault import BRANCH_SIZE
from pvops_core.scenarios.acts import Act, Check, Listing, Role, unlike_history, works
from pvops_core.scenarios.kernels.halves import LOOKS, POKES, TwoStages, Uninitialised, function_of
from pvops_core.scenarios.kernels.patching import AGE, kernel_with_patch_op, plans
from pvops_core.scenarios.places import as_built, at_end, symbolic

if TYPE_CHECKING:
    from pvops_core.patching.kernel import KernelPlan
    from pvops_core.patching.plan import PlannedSite
    from pvops_core.scenarios.kernels.run import KernelRun
    from pvops_core.scenarios.kernels.stage import KernelStage

_TWO_STAGES = "two-stage patching"
_UNINITIALISED = "one poke, from a buffer that nobody filled"
_FOLLOWING: Final = 6  # bytes shown after a site


def play(stage: KernelStage) -> Iterator[Act]:
    """Two stages where the walk has calls that are patched; the buffer where the platform's patcher declines most."""
    kernel = kernel_with_patch_op(stage)
    there = plans(stage, kernel)
    declined = {name: declined_sites(plan) for name, plan in there.items()}
    buffered = max(there, key=lambda name: len(declined[name]), default="")
    walked = sorted((name for name, plan in there.items() if walked_sites(plan)), key=lambda name: name != buffered)
    if not walked and not declined.get(buffered):
        raise stage.refused("on no platform here a site is declined, or its walk of page tables has calls", AGE)
    used = []
    if walked:
        used.append(walked[0])
        halves: list[TwoStages] = []
        run = stage.run(walked[0], prepare=lambda session: halves.append(TwoStages(session)))
        yield two_stages(run, halves[0], there[walked[0]])
    if declined[buffered]:
        used.append(buffered)
        buffers: list[Uninitialised] = []
        sites = [planned.site for planned in declined[buffered]]
        run = stage.run(buffered, prepare=lambda session: buffers.append(Uninitialised(session, sites)))
        yield uninitialised(run, buffers[0], there[buffered])
    for name in dict.fromkeys(used):
        yield in_one_piece(stage.run(name), there[name])


def declined_sites(plan: KernelPlan) -> list[PlannedSite]:
    """Sites that the platform's patcher leaves as they are."""
    return [planned for planned in plan.sites if planned.paravirt == planned.original and not planned.inlined]


def walked_sites(plan: KernelPlan) -> list[PlannedSite]:
    """Sites of the walk of page tables that become a call which is shorter than they are."""
    image = plan.kernel.image
    return [
        planned
        for planned in plan.sites
        if function_of(image, planned.site.address) in LOOKS
        # call rel32: five bytes where the site has more, so that nops are left for a second stage.
        and (planned.paravirt or b"")[:1] == b"\xe8"
        and planned.site.length > BRANCH_SIZE
    ]


def two_stages(run: KernelRun, half: TwoStages, plan: KernelPlan) -> Act:
    """The kernel must have executed what was left of a site of which one part was new."""
    if half.site is None or half.ran is None:
        return unlike_history(_TWO_STAGES, run, "the kernel executes what is left of a site that is being patched")
    site, used, rest = half.site, half.used, half.ran
    op = plan.kernel.layout.slots[site.type].op.name
    built, now = run.built(site.address, site.length), run.now(site.address, site.length)
    shown = site.length + _FOLLOWING
    return Act(
        Role.OLD,
        f"{_TWO_STAGES}: {run.title}",
        run.ending,
        checks=(
            Check("the kernel dies", run.crashed),
            Check("after it has executed what lies behind the new code", rest == site.address + used),
            Check("which is what is left of the old call", now[used:] == built[used:]),
            Check("the site's first bytes are new", now[:used] != built[:used]),
            Check("the site belongs to what a poke executes before it writes", half.function in {*LOOKS, POKES}),
        ),
        story=(
            (
                f"The patcher wrote {used} bytes of new code over the {site.length}-byte call of {op} at "
                f"{symbolic(run, site.address)}; {site.length - used} of nops were to follow."
            ),
            (
                f"The poke that writes nops looks up their page first. {_caller(half.function)} calls {op} through "
                f"this very site: the new code goes on at {rest:#x}, where the rest of the old call still stands and "
                "takes the next instructions for its operands."
            ),
        ),
        facts={
            "op": op,
            "site": f"{site.address:#x}",
            "site_length": site.length,
            "function": half.function,
            "executed": f"{rest:#x}",
            "sites_patched_before": half.before,
            "bytes_built": built.hex(" "),
            "bytes_at_crash": now.hex(" "),
            "words": run.words,
        },
        listings=(
            as_built(run, "as built", site.address, shown),
            at_end(run, "at the time of the crash", site.address, shown),
            *_console(run),
        ),
    )


def _caller(function: str) -> str:
    return f"That walk, {function}," if function in LOOKS else f"{function}, which does both,"


def _console(run: KernelRun) -> Sequence[Listing]:
    return (Listing("the kernel's console", (run.words,)),) if run.words else ()


def uninitialised(run: KernelRun, buffer: Uninitialised, plan: KernelPlan) -> Act:
    """The kernel must have executed a site that was to be left alone and holds what the buffer held."""
    asked = set(buffer.sites)
    mine = [planned.site for planned in declined_sites(plan) if planned.site.address in buffer.wrote]
    wrong = [site for site in mine if buffer.wrote.get(site.address) != run.built(site.address, site.length)]
    held = all(buffer.wrote[each.address] == buffer.held.get(each.address) for each in mine)
    every = Check("every site that the patcher declined got what the buffer held", bool(wrong) and held)
    told = (
        f"The patcher declined {len(mine)} of the {len(asked)} sites that it was asked about, saying so by giving back "
        "their length. The buffer was then written over them as it was: with the code of sites before."
    )
    facts = {"asked": len(asked), "declined": len(mine), "garbage": len(wrong)}
    if buffer.ran is None and run.done:
        return works(Role.ELSEWHERE, _UNINITIALISED, run, (told, "None of them was executed in this boot."), [every])
    site = next((site for site in mine if site.address == buffer.ran), None)
    if site is None:
        return unlike_history(_UNINITIALISED, run, "the kernel executes a site that holds what the buffer held")
    name, got = plan.kernel.layout.slots[site.type].op.name, buffer.wrote[site.address]
    return Act(
        Role.OLD,
        f"{_UNINITIALISED}: {run.title}",
        run.ending,
        checks=(
            Check("the kernel dies", run.crashed),
            every,
            Check("it executed one of them", site in wrong),
        ),
        story=(told, f"The first that the kernel executed is one of {name} at {symbolic(run, site.address)}."),
        facts={
            **facts,
            "op": name,
            "site": f"{site.address:#x}",
            "site_length": site.length,
            "bytes_built": run.built(site.address, site.length).hex(" "),
            "bytes_at_crash": got.hex(" "),
            "words": run.words,
        },
        listings=(
            as_built(run, "as built, and as the fixed patcher leaves it", site.address, site.length),
            at_end(run, "at the time of the crash", site.address, site.length),
            *_console(run),
        ),
    )


def in_one_piece(run: KernelRun, plan: KernelPlan) -> Act:
    """What has been done since: the buffer begins as a copy of the site and is written at once."""
    now = {planned.site.address: run.now(planned.site.address, planned.site.length) for planned in plan.sites}
    kept = declined_sites(plan)
    story = (
        f"{len(plan.sites) - len(kept)} sites are new, {len(kept)} that the patcher declined are as they were built."
    )
    return works(
        Role.FIXED,
        "one poke, from a buffer that begins as a copy of the site",
        run,
        [story],
        [Check("every site is as predicted", all(now[each.site.address] == each.final for each in plan.sites))],
    )

"""A patch op of a real kernel that inlines more bytes than a call has: its own BUG_ON, and what follows the call.

The patcher stands in front of the kernel's own, and answers for one op alone: what it does there is what the patchers
of the built-in guest's acts do, of which none was checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from pvops_core.guest.stacks.spans import Spans
from pvops_core.patching.poke import Poke
from pvops_core.scenarios.acts import Act, Check, Listing, Role, unlike_history, works
from pvops_core.scenarios.kernels.patching import AGE, PatchOp, kernel_with_patch_op, plans
from pvops_core.scenarios.places import as_built, at_end, code, symbolic
from pvops_core.x86 import UD

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.patching.kernel import KernelPlan
    from pvops_core.patching.sites import SiteRecord
    from pvops_core.scenarios.kernels.patching import PatchRequest
    from pvops_core.scenarios.kernels.run import KernelRun
    from pvops_core.scenarios.kernels.stage import KernelStage
    from pvops_core.session import Session

OP: Final = "irq_disable"
PATCHLETS: Final = {
    8: bytes.fromhex("55 48 89 e5 9c 48 81 24 24 ff fd ff ff 9d 5d"),
    4: bytes.fromhex("55 89 e5 9c 81 24 24 ff fd ff ff 9d 5d 90"),
}
"""By a pointer's size: push rbp; mov rbp, rsp; pushf; and [rsp], ~IF; popf; pop rbp. A site has 6 to 13 bytes."""
BY: Final = "scenario patchlet-too-long"
_LEFT = "a patcher that leaves alone what does not fit, as paravirt_patch_insns does"
_REPORTED = "a patcher that uses more bytes than the site has, and says so"
_OVERRUN = "a patcher that writes in place and does not look at the length"
_FOLLOWING: Final = 12


class LongPatchOp:
    """Stands in front of a kernel's patch op, and has a patchlet for one op that is longer than its calls.

    Args:
        session: whose kernel it is; it has not run yet.
        op: number of the op.
        leaves: leave alone what does not fit.
        overruns: write it in place all the same; else say how many bytes were used.

    Attributes:
        first: the first site of the op that it was asked about; None before.
        before: how many sites were before it.
    """

    def __init__(self, session: Session, op: int, *, leaves: bool = False, overruns: bool = False) -> None:
        self.first: int | None = None
        self.before = 0
        self._session, self._op, self._leaves, self._overruns = session, op, leaves, overruns
        self._code = PATCHLETS[session.guest.image.pointer_size]
        self._patch = PatchOp(session, answered=self._answered)

    def _answered(self, cpu: Vcpu, asked: PatchRequest | None, _used: int) -> None:
        if asked is None or asked.type != self._op:
            return
        if self.first is None:
            self.first, self.before = asked.address, len(self._patch.sites) - 1
        used = asked.length if self._leaves else len(self._code)
        if self._leaves:
            cpu.write_virtual(asked.buffer, self._session.guest.image.read(asked.address, asked.length))
        elif self._overruns:
            used = asked.length
            cpu.write_virtual(asked.buffer, self._code[: asked.length])
            self._session.machine.defer(lambda: self._write(asked.address))
        cpu.set("rax" if self._session.guest.image.pointer_size == 8 else "eax", used)

    def _write(self, address: int) -> None:
        now = self._session.read(address, len(self._code))
        asked = Spans(np.array([[address, address + len(self._code)]], dtype=np.uint64))  # those patchers asked nobody
        self._session.poker.transaction([Poke(address, now, self._code)], by=BY, asked=asked)


def play(stage: KernelStage) -> Iterator[Act]:
    """The three patchers on one platform, then the kernel's own."""
    kernel = kernel_with_patch_op(stage)
    there = plans(stage, kernel)
    name = next((name for name in ("native", *there) if name in there), "")
    op = next((slot.type for slot in kernel.layout.slots if slot.op.name == OP), None)
    size = len(PATCHLETS[kernel.image.pointer_size])
    sites = [site for site in kernel.sites if site.type == op and site.length < size]
    if not name or op is None or not sites:
        raise stage.refused(f"has no call of {OP} that is shorter than {size} bytes", AGE)

    def unchecked(*, leaves: bool = False, overruns: bool = False) -> tuple[KernelRun, LongPatchOp]:
        made: list[LongPatchOp] = []

        def prepare(session: Session) -> None:
            made.append(LongPatchOp(session, op, leaves=leaves, overruns=overruns))

        return stage.run(name, prepare=prepare), made[0]

    yield left_alone(*unchecked(leaves=True), sites)
    yield reported(*unchecked(), sites)
    yield overrun(*unchecked(overruns=True), sites)
    yield fitting(stage.run(name), there[name], sites)


def left_alone(run: KernelRun, _patcher: LongPatchOp, sites: Sequence[SiteRecord]) -> Act:
    """The length of the site is given back, and the call stays."""
    whole = all(run.now(site.address, site.length) == run.built(site.address, site.length) for site in sites)
    return works(
        Role.ELSEWHERE,
        _LEFT,
        run,
        (f"Its patchlet for {OP} does not fit into {len(sites)} sites. They keep their calls: no harm, and no use.",),
        [Check("every one of them is as built", whole)],
    )


def reported(run: KernelRun, patcher: LongPatchOp, sites: Sequence[SiteRecord]) -> Act:
    """The kernel's own ``BUG_ON(used > len)``."""
    site = next((site for site in sites if site.address == patcher.first), None)
    bug = next((fault for fault in run.faults if fault.vector == UD and _function(run, fault.rip) in _LOOPS), None)
    if site is None or bug is None:
        return unlike_history(_REPORTED, run, "the kernel's loop over its sites comes to its BUG")
    size = len(PATCHLETS[run.guest.image.pointer_size])
    whole = run.now(site.address, site.length) == run.built(site.address, site.length)
    return Act(
        Role.OLD,
        f"{_REPORTED}: {run.title}",
        run.ending,
        checks=(
            Check("the kernel dies", run.crashed),
            Check("of invalid opcode in its own loop over the sites: BUG_ON(used > len)", bug.vector == UD),
            Check("nothing was written over the site", whole),
        ),
        story=(
            (
                f"The kernel asks its patcher for the code of {OP} at {symbolic(run, site.address)}, after "
                f"{patcher.before} other sites: {size} bytes used of {site.length}."
            ),
            f"It cannot go on: the BUG is at RIP {symbolic(run, bug.rip)}.",
        ),
        facts={
            "op": OP,
            "site": f"{site.address:#x}",
            "site_length": site.length,
            "used": size,
            "sites_patched_before": patcher.before,
            "rip": f"{bug.rip:#x}",
            "words": run.words,
        },
        listings=(
            code(run.guest, "the patchlet", site.address, PATCHLETS[run.guest.image.pointer_size], size),
            *_console(run),
        ),
    )


_LOOPS: Final = frozenset({"apply_paravirt", "apply_paravirt.part.0", "alternative_instructions"})
"""Where BUG_ON stands, or its caller, if the compiler put the one into the other."""


def _function(run: KernelRun, address: int) -> str:
    return (run.guest.image.symbol_at(address) or ("", 0))[0]


def _console(run: KernelRun) -> Sequence[Listing]:
    return (Listing("the kernel's console", (run.words,)),) if run.words else ()


def overrun(run: KernelRun, patcher: LongPatchOp, sites: Sequence[SiteRecord]) -> Act:
    """The instructions behind a site are overwritten, and executed as something else."""
    size = len(PATCHLETS[run.guest.image.pointer_size])
    spoilt = [site for site in sites if run.now(site.address + site.length, size - site.length) != _after(run, site)]
    if not spoilt or patcher.first is None:
        return unlike_history(_OVERRUN, run, "what lies behind a site is overwritten")
    code_there = PATCHLETS[run.guest.image.pointer_size]
    whole = [site for site in spoilt if run.now(site.address, size) == code_there]  # a dying kernel spoils others
    site = next((site for site in (*whole, *spoilt) if _near(run, site)), (*whole, *spoilt)[0])
    shown = site.length + _FOLLOWING
    return Act(
        Role.OLD,
        f"{_OVERRUN}: {run.title}",
        run.ending,
        checks=(
            Check("the kernel dies", run.crashed),
            Check("the bytes after a site are no longer those it was built with", bool(spoilt)),
        ),
        story=(
            (
                f"{size} bytes were written over calls of {OP} of as few as {min(each.length for each in sites)}: "
                f"{len(whole)} of them are whole in the end, their last bytes on instructions of the kernel's."
            ),
            f"One is at {symbolic(run, site.address)}: {size - site.length} bytes too many.",
        ),
        facts={
            "op": OP,
            "sites": len(sites),
            "overrun": len(whole),
            "site": f"{site.address:#x}",
            "site_length": site.length,
            "written": size,
            "bytes_built": run.built(site.address, shown).hex(" "),
            "bytes_at_crash": run.now(site.address, shown).hex(" "),
            "words": run.words,
        },
        listings=(
            as_built(run, "as built", site.address, shown),
            at_end(run, "at the time of the crash", site.address, shown),
            *_console(run),
        ),
    )


def _after(run: KernelRun, site: SiteRecord) -> bytes:
    return run.built(site.address + site.length, len(PATCHLETS[run.guest.image.pointer_size]) - site.length)


def _near(run: KernelRun, site: SiteRecord) -> bool:
    """A fault's RIP lies shortly behind it."""
    return any(0 <= fault.rip - site.address - site.length < 2 * _FOLLOWING for fault in run.faults)


def fitting(run: KernelRun, plan: KernelPlan, sites: Sequence[SiteRecord]) -> Act:
    """The kernel's own patcher, whose code for the op fits."""
    planned = {each.site.address: each for each in plan.sites}
    inlined = [site for site in sites if planned[site.address].inlined]
    good = all(run.now(site.address, site.length) == planned[site.address].final for site in sites)
    first = run.now(sites[0].address, sites[0].length)
    where = symbolic(run, sites[0].address)
    locks = frozenset(plan.kernel.locks.addresses if plan.kernel.locks is not None else ())
    return works(
        Role.FIXED,
        "the kernel's own patcher, whose code fits",
        run,
        [f"It stands at {len(inlined)} of the {len(sites)} sites: {first.hex(' ')} at {where}."],
        [
            Check("it stands at every site", len(inlined) == len(sites)),
            Check("and nothing behind one has changed", good and all(_untouched(run, site, locks) for site in sites)),
        ],
    )


def _untouched(run: KernelRun, site: SiteRecord, locks: frozenset[int]) -> bool:
    """Whether the byte behind a site is as built, another site's, or a lock prefix, which one CPU does not keep."""
    end = site.address + site.length
    return run.site_at(end) is not None or end in locks or run.now(end, 1) == run.built(end, 1)

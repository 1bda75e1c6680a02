"""Early 2013: the write_cr3 of a running kernel, used before there is what it looks for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import UsageError
from pvops_core.scenarios.acts import Act, Check, Commit, Role, unlike_history, works
from pvops_core.scenarios.kernels import early_cr3 as kernel
from pvops_core.scenarios.model import Scenario
from pvops_core.scenarios.places import symbolic
from pvops_core.x86 import PF, USER

if TYPE_CHECKING:
    from pvops_core.scenarios.stage import Stage, StagedRun
    from pvops_core.session import Session
    from pvops_core.switchboard import Switch

LAYOUT: Final = "6.1-64"
OP: Final = "write_cr3"
LATE: Final = "xen_write_cr3"
BY: Final = "scenario early-cr3"
# VMEMMAP_START without KASLR (Documentation/arch/x86/x86_64/mm.rst), sizeof(struct page), offset of page->private.
VMEMMAP: Final = 0xFFFF_EA00_0000_0000
STRUCT_PAGE: Final = 64
PRIVATE: Final = 0x28
EARLY: Final = "xen_write_cr3_init"
_OLD = "the late write_cr3 from the start"


def play(stage: Stage) -> Iterator[Act]:
    """The late version from the first call on, then the early one that makes way for it."""
    yield late_from_the_start(stage.run(LAYOUT, "xen", prepare=use_late_version))
    yield early_then_late(stage.run(LAYOUT, "xen"))


def use_late_version(session: Session) -> None:
    """Switch write_cr3 to the late version before the guest's first instruction."""
    early = session.switchboard.offered(OP, "xen").function
    late = getattr(getattr(early, "__self__", None), LATE, None)
    if late is None:
        raise UsageError(f"the installed xen backend has no {LATE}")
    session.switchboard.switch(OP, late, by=BY)


def late_from_the_start(run: StagedRun) -> Act:
    """The guest must have died looking for the struct page of its new root."""
    fault = next((fault for fault in run.faults if fault.vector == PF and fault.entry is None), None)
    if fault is None or fault.address is None or not run.history:
        return unlike_history(_OLD, run, "write_cr3 faults on the way to the user pgd")
    struct_page = VMEMMAP + run.tables.start * STRUCT_PAGE
    looked = [fields["address"] for fields in run.named("xen_get_user_pgd")]
    switch = run.history[0]
    return Act(
        Role.OLD,
        f"{_OLD}: {run.title}",
        run.ending,
        checks=(
            Check("the domain crashes", run.crashed),
            Check("of a read of memory that nothing maps", (fault.error_code or 0) & ~USER == 0),
            Check("where xen_get_user_pgd looks for the root's user pgd", looked == [struct_page]),
            Check("in the private word of the root's struct page", fault.address == struct_page + PRIVATE),
            Check("the late version was in force from the start", [s.by for s in run.history] == [BY]),
        ),
        story=(
            f"Before the first instruction {switch.by} switched {OP} from {switch.old} to {switch.new}.",
            (
                f"The guest then loads its own page tables for the first time: root in frame {run.tables.start:#x}. "
                "The late version also loads the root that user mode runs on. It is kept in the struct page of the "
                f"kernel's root: page->private, at {fault.address:#x}."
            ),
            (
                f"The array of struct pages is not there yet. The read faults: vector {fault.vector}, error code "
                f"{fault.error_code} (4 as ring 3 faults, where Xen runs 64-bit kernels; the guest is told 0), no "
                f"table maps the address, RIP at {symbolic(run, fault.rip)}."
            ),
        ),
        facts={
            "rip": f"{fault.rip:#x}",
            "fault_vector": fault.vector,
            "fault_address": f"{fault.address:#x}",
            "error_code": fault.error_code,
            "root_frame": f"{run.tables.start:#x}",
            "history": tuple(told(each) for each in run.history),
        },
    )


def early_then_late(run: StagedRun) -> Act:
    """The early version loads the kernel's root and nothing else, then switches itself to the late one."""
    mine = [switch for switch in run.history if switch.op == OP]
    ways = [(switch.old, switch.new, switch.by) for switch in mine]
    act = works(
        Role.FIXED,
        "the early write_cr3 first",
        run,
        [
            f"At {switch.ns:,} ns {switch.by} switched {switch.op} from {switch.old} to {switch.new}: its own call "
            "loaded the kernel's root only, and all later ones load both."
            for switch in mine
        ],
        [
            Check(
                "the early version switched itself to the late one, once",
                ways == [("xen.write_cr3", f"xen.{LATE}", EARLY)],
            )
        ],
    )
    return attrs.evolve(act, facts={**act.facts, "history": tuple(told(switch) for switch in mine)})


def told(switch: Switch) -> str:
    """A switch on one line."""
    return f"{switch.ns} ns: {switch.op}: {switch.old} -> {switch.new} by {switch.by}"


SCENARIO: Final = Scenario(
    name="early-cr3",
    summary="the late write_cr3 at early boot walks to a user pgd that is not there, and the domain crashes",
    commits=(
        Commit("8170e6bed465", "January 2013", "build early page tables on demand: cr3 is loaded much earlier"),
        Commit("0cc9129d75ef", "February 2013", "load the kernel's cr3 only at first, by a write_cr3 of its own"),
    ),
    play=play,
    on_kernel=kernel.play,
)

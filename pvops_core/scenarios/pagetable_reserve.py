"""Spring 2011: the pages that were set aside for the first page tables, and when they may be written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pvops_core.scenarios.acts import Act, Check, Commit, Role, unlike_history, works
from pvops_core.scenarios.kernels import pagetable_reserve as kernel
from pvops_core.scenarios.model import Scenario
from pvops_core.scenarios.places import symbolic
from pvops_core.x86 import PAGE_SHIFT, PF, PRESENT, USER, WRITABLE

if TYPE_CHECKING:
    from pvops_core.scenarios.stage import Stage, StagedRun

LAYOUTS: Final = ("6.1-64", "2.6.24-pae")
INVALID_OP: Final = 6
WRITE_TO_READ_ONLY: Final = 3  # error code: the page is present, the access was a write
EINVAL: Final = -22
MMUEXT_OP: Final = 26
_NONE = "spare pages are used without pagetable_reserve"
_EARLY_RW = "pages not yet used are mapped read-write"
_REFUSAL = re.compile(
    r"Bad type \(saw (?P<type>\w+) x (?P<count>\d+) != exp (?P<wanted>\w+)\) for mfn (?P<mfn>[0-9a-f]+)"
)


def play(stage: Stage) -> Iterator[Act]:
    """For a 64-bit and a PAE guest: both old ways on xen, both at once on native, then the hook."""
    for layout in LAYOUTS:
        yield spare_pages_read_only(stage.run(layout, "xen", "pagetable_reserve=none"))
        yield mapped_too_early(stage.run(layout, "xen", "map=early-rw"))
        yield harmless(stage.run(layout, "native", "pagetable_reserve=none map=early-rw"))
        yield reserved(stage.run(layout, "xen"))


def spare_pages_read_only(run: StagedRun) -> Act:
    """The guest must have died of its first write to a spare page, which is still mapped read-only."""
    fault = run.faults[-1] if run.faults else None
    if fault is None or fault.address is None or fault.entry is None:
        return unlike_history(_NONE, run, "a write to a spare page faults")
    frame = (fault.address - run.guest.kernel_base) >> PAGE_SHIFT
    tables, told = run.tables, (fault.error_code or 0) & ~USER
    return Act(
        Role.OLD,
        f"{_NONE}: {run.title}",
        run.ending,
        checks=(
            Check("the guest crashes", run.crashed),
            Check("of a page fault", fault.vector == PF),
            Check("error code 3: a write to a page that is there but read-only", told == WRITE_TO_READ_ONLY),
            Check("the guest's last words name it", f"error {told:0{2 * run.guest.kind.pointer_size}x}" in run.panic),
            Check("the entry says so", fault.entry & (PRESENT | WRITABLE) == PRESENT),
            Check("the page is a spare one of the buffer", tables.end <= frame < tables.top),
            Check("nobody was asked to reserve anything", not list(run.named("memblock-reserve"))),
        ),
        story=(
            (
                f"The page-table buffer is frames {tables.start:#x} to {tables.top - 1:#x}; the tables took those "
                f"below {tables.end:#x}. All of it was mapped read-only, for Xen takes no page table that can be "
                "written."
            ),
            (
                f"The rest, {tables.top - tables.end} pages, became ordinary memory as it was. The first write, at RIP "
                f"{symbolic(run, fault.rip)} to {fault.address:#x} in frame {frame:#x}, faults: error code "
                f"{told} as the kernel is told, page-table entry {fault.entry:#x} (present, not writable)."
            ),
        ),
        facts={
            "rip": f"{fault.rip:#x}",
            "fault_vector": fault.vector,
            "fault_address": f"{fault.address:#x}",
            "error_code": told,
            "entry": f"{fault.entry:#x}",
            "frame": frame,
            "buffer": (tables.start, tables.end, tables.top),
        },
    )


def mapped_too_early(run: StagedRun) -> Act:
    """Xen must have refused a page as a page table because a mapping holds it writable."""
    refused = [each for each in run.named("hypercall") if each["result"] == EINVAL]
    told = [found for each in run.named("xen") if (found := _REFUSAL.match(each["message"]))]
    fault = run.faults[-1] if run.faults else None
    if not refused or not told or fault is None:
        return unlike_history(_EARLY_RW, run, "Xen refuses a page as a page table")
    why, bugs = told[0], [each["message"] for each in run.named("bug")]
    tables, count = run.tables, int(why["count"])
    return Act(
        Role.OLD,
        f"{_EARLY_RW}: {run.title}",
        run.ending,
        checks=(
            Check("the guest crashes", run.crashed),
            Check("Xen refused one mmuext_op with -EINVAL", [int(each["nr"]) for each in refused] == [MMUEXT_OP]),
            Check("the frame was to become a page table", why["wanted"].startswith("L")),
            Check("it has writable mappings", why["type"] == "WRITABLE" and count > 0),
            Check("it is the last page taken from the buffer", bugs == [_bug(why["wanted"], tables.end - 1)]),
            Check("the kernel takes that for a BUG (invalid opcode)", fault.vector == INVALID_OP),
        ),
        story=(
            (
                f"Only pages that were page tables already were mapped read-only. Frame {tables.end - 1:#x} was mapped "
                "read-write by a table that Xen has taken, and then became the next page table itself."
            ),
            (
                f"mmuext_op PIN_{why['wanted']}_TABLE was refused with error {refused[0]['result']} (-EINVAL): machine "
                f"frame 0x{why['mfn']} has type {why['type'].lower()}, {count} reference{'s' if count > 1 else ''}, "
                f"where {why['wanted']} was asked for."
            ),
            f"The kernel has no answer to that but BUG(), at RIP {symbolic(run, fault.rip)}.",
        ),
        facts={
            "hypercall": "mmuext_op",
            "command": f"PIN_{why['wanted']}_TABLE",
            "error": int(refused[0]["result"]),
            "frame": tables.end - 1,
            "machine_frame": int(why["mfn"], 16),
            "frame_type": why["type"],
            "type_count": count,
            "wanted_type": why["wanted"],
            "rip": f"{fault.rip:#x}",
            "fault_vector": fault.vector,
        },
    )


def _bug(wanted: str, pfn: int) -> str:
    return f"PIN_{wanted}_TABLE of pfn {pfn:#x} was refused"


def harmless(run: StagedRun) -> Act:
    """Bare metal neither maps page tables read-only nor minds who can write them."""
    return works(
        Role.ELSEWHERE,
        "both at once",
        run,
        ("On bare metal page tables are memory like any other: neither way does harm.",),
    )


def reserved(run: StagedRun) -> Act:
    """The hook: the used range is reserved, and the rest set read-write."""
    ranges = [(each["start"] >> PAGE_SHIFT, each["end"] >> PAGE_SHIFT) for each in run.named("memblock-reserve")]
    tables = run.tables
    return works(
        Role.FIXED,
        "the buffer is mapped read-only as a whole, and pagetable_reserve gives back the rest",
        run,
        (
            (
                f"pagetable_reserve reserved frames {tables.start:#x} to {tables.end - 1:#x} and set the "
                f"{tables.top - tables.end} spare ones read-write before anyone used them."
            ),
        ),
        [
            Check("exactly the used range was reserved", ranges == [(tables.start, tables.end)]),
            Check("there were spare pages", tables.top > tables.end),
            Check("Xen refused no page", not [e for e in run.named("xen") if _REFUSAL.match(e["message"])]),
        ],
    )


SCENARIO: Final = Scenario(
    name="pagetable-reserve",
    summary="spare page-table pages that stay read-only, and pages mapped read-write before they become page tables",
    commits=(
        Commit("279b706bf800", "April 2011", "map the whole buffer read-only; pagetable_reserve gives back the rest"),
    ),
    play=play,
    on_kernel=kernel.play,
)

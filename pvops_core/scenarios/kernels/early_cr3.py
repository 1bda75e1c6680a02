"""The write_cr3 of a running kernel, put into a real kernel's table before there are the struct pages it looks into."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pvops_core.scenarios.acts import Act, Check, Listing, Role, unlike_history, works
from pvops_core.scenarios.places import symbolic
from pvops_core.x86 import PAGE_SHIFT, PF, USER

if TYPE_CHECKING:
    from pvops_core.scenarios.kernels.run import KernelRun
    from pvops_core.scenarios.kernels.stage import KernelStage
    from pvops_core.scenarios.witness import Fault
    from pvops_core.session import Session
    from pvops_core.switchboard import Switch

OP: Final = "write_cr3"
EARLY, LATE, LOOKS = "xen_write_cr3_init", "xen_write_cr3", "xen_get_user_pgd"
AGE: Final = "one of x86_64 with XEN_PV, 3.9 or later, whose first load of CR3 comes before its struct pages"
BY: Final = "scenario early-cr3"
VMEMMAP: Final = 0xFFFF_EA00_0000_0000
"""VMEMMAP_START with four levels of page tables (Documentation/x86/x86_64/mm.txt)."""
_SECTIONS: Final = 0x2000
"""Bytes of a page of struct mem_section, of 32 or 64 bytes 256 or 128 (include/linux/mmzone.h), and more."""
_SIZES: Final = (64, 56)
"""Bytes of a struct page (include/linux/mm_types.h), with and without HAVE_ALIGNED_STRUCT_PAGE."""
_OLD = f"{LATE} from the start"


def play(stage: KernelStage) -> Iterator[Act]:
    """The late version from the first call on, then the kernel's own way."""
    if stage.kernel.image.pointer_size != 8:
        raise stage.refused("has 32 bits, where Xen's write_cr3 loads one root", AGE)
    stage.require(AGE, EARLY, LATE)
    roots: list[int] = []

    def late(session: Session) -> None:
        session.machine.break_at(session.guest.symbols[LATE], lambda cpu: roots.append(cpu.get("rdi")), acts=False)
        session.once_at("start_kernel", lambda: session.ops.switch(OP, f"kernel:{LATE}", by=BY))

    run = stage.run("xen", prepare=late)
    if run.done:
        raise stage.refused(f"has struct pages when {LATE} is first called, which does no harm", AGE)
    yield late_from_the_start(run, roots[0] if roots else 0)
    yield early_then_late(stage.run("xen"))


def late_from_the_start(run: KernelRun, root: int) -> Act:
    """The kernel must have died looking for the struct page of its new root."""
    fault = next((each for each in run.faults if each.vector == PF and each.entry is None), None)
    if fault is None or fault.address is None:
        return unlike_history(_OLD, run, "write_cr3 faults on the way to the user pgd")
    mine = [each for each in run.history if each.op == OP]
    return Act(
        Role.OLD,
        f"{_OLD}: {run.title}",
        run.ending,
        checks=tuple(_checks(run, root, fault, mine)),
        story=(
            f"Before start_kernel {BY} put {LATE} into the slot of {OP}, where the kernel had {EARLY}.",
            (
                f"The kernel then loads its own page tables for the first time: root {root:#x}. {LATE} looks for the "
                f"root of user mode as well, in page->private of the kernel's root. There are no struct pages yet: it "
                f"gets as far as {_looked(run, root)[0]}."
            ),
            (
                f"The read of {fault.address:#x} at RIP {symbolic(run, fault.rip)} faults: vector {fault.vector}, "
                f"error code {fault.error_code}, and no table maps the address."
            ),
        ),
        facts={
            "rip": f"{fault.rip:#x}",
            "fault_vector": fault.vector,
            "fault_address": f"{fault.address:#x}",
            "error_code": fault.error_code,
            "root": f"{root:#x}",
            "words": run.words,
            "history": tuple(f"{each.ns} ns: {each.old} -> {each.new} by {each.by}" for each in mine),
        },
        listings=tuple(_words(run)),
    )


def _checks(run: KernelRun, root: int, fault: Fault, switches: list[Switch]) -> Iterator[Check]:
    where, there = _looked(run, root)
    name, _distance = run.guest.image.symbol_at(fault.rip) or ("", 0)
    yield Check("the kernel dies", run.crashed)
    yield Check("of a read of memory that nothing maps", (fault.error_code or 0) & ~USER == 0)
    yield Check(f"in {LATE} or in what it calls", name in {LATE, LOOKS})
    yield Check(f"in {where}", any((fault.address or 0) in each for each in there))
    yield Check("the late version was in force from the start", bool(switches) and switches[-1].by == BY)


def _looked(run: KernelRun, root: int) -> tuple[str, list[range]]:
    """What virt_to_page looks into for a root, by the kernel's model of memory, and where that could be."""
    symbols = run.guest.symbols
    if "vmemmap_populate" not in symbols and "mem_section" in symbols:
        return "the section of the root's frame, of which there is none yet", [range(_SECTIONS)]
    base = VMEMMAP if "vmemmap_populate" in symbols else 0  # mem_map is a null pointer yet
    pages = [(base + (root >> PAGE_SHIFT) * size, size) for size in _SIZES]
    return "the struct page of the root that it loads", [range(page, page + size) for page, size in pages]


def _words(run: KernelRun) -> Iterator[Listing]:
    """What Xen and the kernel themselves said."""
    from_xen = [text for text in run.messages if text.startswith(("Unhandled", "Pagetable walk", " L", "domain crash"))]
    if from_xen:
        yield Listing("Xen's console", tuple(from_xen))
    if run.words:
        yield Listing("the kernel's console", (run.words,))


def early_then_late(run: KernelRun) -> Act:
    """The early version loads the kernel's root and nothing else; then the kernel puts the late one into its place."""
    mine = [each for each in run.history if each.op == OP and each.old == EARLY]
    return works(
        Role.FIXED,
        f"{EARLY} first",
        run,
        [
            f"At {each.ns:,} ns the kernel itself wrote its slot of {OP}: {each.new} in place of {each.old}."
            for each in mine
        ],
        [Check(f"the kernel put {LATE} in place of {EARLY}, once", [each.new for each in mine] == [LATE])],
    )

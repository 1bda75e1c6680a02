"""Spare pages of a real kernel's first page tables under Xen, without the hook that lets them be written again.

As the hook came (2.6.39) the buffer lay at the end of memory, so that the tables in it map it themselves, read-only.
``8548c84da2f4`` (October 2011) moved it below what was mapped already, by Xen's domain builder and writable: since then
spare pages do no harm. Such a kernel is shown as it is, and with the buffer where it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.machine import GuestFault
from pvops_core.scenarios.acts import Act, Check, Listing, Role, unlike_history, works
from pvops_core.scenarios.places import symbolic
from pvops_core.x86 import PAGE_SHIFT, PF, PRESENT, USER, WRITABLE

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.scenarios.kernels.run import KernelRun
    from pvops_core.scenarios.kernels.stage import KernelStage
    from pvops_core.scenarios.witness import Fault
    from pvops_core.session import Session

XEN, NATIVE, TABLE = "xen_mapping_pagetable_reserve", "native_pagetable_reserve", "x86_init"
AGE: Final = "one of x86_64 with XEN_PV, 2.6.39 to 3.6, which sets pages for its page tables aside"
_BOUNDS: Final = ("pgt_buf_start", "pgt_buf_end", "pgt_buf_top")
_MAPPED, _MAPS = "max_pfn_mapped", "init_memory_mapping"
_HOOKS: Final = 64
"""Words of x86_init that are looked through; it has some thirty hooks (asm/x86_init.h)."""
WRITE_TO_READ_ONLY: Final = 3
"""Error code: the page is present, the access was a write."""
_OLD = f"{NATIVE} in place of {XEN}"


@attrs.define
class Buffer:
    """The pages set aside, when the hook has returned.

    Attributes:
        start, end, top: frames; used below ``end``, spare from there to ``top``.
        spare: leaf page-table entry that maps each spare page; 0 where none does.
        base: guest-virtual address of frame 0.
    """

    start: int = 0
    end: int = 0
    top: int = 0
    spare: tuple[int, ...] = ()
    base: int = 0

    @property
    def read_only(self) -> int:
        """How many of the spare pages cannot be written."""
        return sum(entry & (PRESENT | WRITABLE) == PRESENT for entry in self.spare)

    def watch(self, session: Session, hook: str) -> None:
        """Fill it in when a hook returns for the first time."""
        symbols, machine = session.guest.symbols, session.machine

        def entered(cpu: Vcpu) -> None:
            # At a function's first instruction its return address is on top of the stack.
            back = cpu.word(cpu.rsp)
            if not self.top:
                # No breakpoint is set from inside a handler: it waits until every vCPU has stopped.
                machine.defer(lambda: at(back))

        def at(back: int) -> None:
            machine.break_at(back, look)

        def look(cpu: Vcpu) -> None:
            if self.top:
                return
            self.start, self.end, self.top = (cpu.u64(symbols[name]) for name in _BOUNDS)
            self.base = session.guest.direct_map(session.text)
            pages = range(self.end, self.top)
            self.spare = tuple(_leaf(cpu, self.base + (page << PAGE_SHIFT)) for page in pages)

        machine.break_at(symbols[hook], entered)

    def told(self) -> str:
        """In a sentence."""
        spare = self.top - self.end
        return (
            f"The page-table buffer is frames {self.start:#x} to {self.top - 1:#x}; the tables took those below "
            f"{self.end:#x}. Of the {spare} spare pages {self.read_only} are mapped read-only"
        )


def _leaf(cpu: Vcpu, address: int) -> int:
    try:
        return cpu.walk(address).entries[-1][1]
    except GuestFault:
        return 0


def play(stage: KernelStage) -> Iterator[Act]:
    """Without the hook; if that does no harm, with the buffer where it was when the hook came; then with it."""
    if stage.kernel.image.pointer_size != 8:
        raise stage.refused("has 32 bits, where pages that are mapped already stay as they are", AGE)
    stage.require(AGE, TABLE, XEN, NATIVE, _MAPPED, _MAPS, *_BOUNDS)
    place = hook_place(stage)

    def played(*, away: bool, high: bool) -> tuple[KernelRun, Buffer]:
        buffer = Buffer()

        def prepare(session: Session) -> None:
            if high:
                put_high(session)
            if away:
                take_away(session, place)
            buffer.watch(session, NATIVE if away else XEN)

        return stage.run("xen", prepare=prepare), buffer

    run, buffer = played(away=True, high=False)
    harms = buffer.read_only > 0
    if not harms:
        yield harmless(run, buffer)
        run, buffer = played(away=True, high=True)
    yield without_the_hook(run, buffer)
    yield with_the_hook(*played(away=False, high=not harms))


def hook_place(stage: KernelStage) -> int:
    """Guest-virtual address of the hook in x86_init, which is linked with bare metal's function."""
    image, start = stage.kernel.image, stage.kernel.symbols[TABLE]
    words = image.pointers(start, _HOOKS)
    if stage.kernel.symbols[NATIVE] not in words:
        raise stage.refused(f"has no {NATIVE} in {TABLE}", AGE)
    return start + image.pointer_size * words.index(stage.kernel.symbols[NATIVE])


def take_away(session: Session, place: int) -> None:
    """Put bare metal's function where Xen's is, before the kernel uses it."""
    native = session.guest.symbols[NATIVE]
    session.once_at("start_kernel", lambda: session.machine.vcpus[0].set_u64(place, native))


def put_high(session: Session) -> None:
    """Let the buffer be looked for in all memory, as before ``8548c84da2f4``: it is taken from the end."""
    symbols = session.guest.symbols
    # init_memory_mapping(start, end): the end is the second argument.
    session.machine.break_at(symbols[_MAPS], lambda cpu: cpu.set_u64(symbols[_MAPPED], cpu.get("rsi") >> PAGE_SHIFT))


def harmless(run: KernelRun, buffer: Buffer) -> Act:
    """This kernel takes its buffer from what is mapped already, writable."""
    story = (
        f"{buffer.told()}: this kernel takes its buffer from memory that Xen's domain builder has mapped, writable, "
        f"and leaves such entries alone. In the next acts the buffer lies where it did when the hook came, at the end "
        f"of memory: {_MAPPED} says so while {_MAPS} looks for room."
    )
    return works(
        Role.ELSEWHERE,
        _OLD,
        run,
        [story],
        [
            Check("there are spare pages", buffer.top > buffer.end),
            Check("all of them can be written", len(buffer.spare) == buffer.top - buffer.end and not buffer.read_only),
        ],
    )


def without_the_hook(run: KernelRun, buffer: Buffer) -> Act:
    """The kernel must have died of its first write to a spare page, which is still mapped read-only."""
    fault = next((each for each in run.faults if _spare(each, buffer)), None)
    if fault is None or fault.address is None or fault.entry is None:
        return unlike_history(_OLD, run, "a write to a spare page faults")
    frame = (fault.address - buffer.base) >> PAGE_SHIFT
    error = (fault.error_code or 0) & ~USER
    return Act(
        Role.OLD,
        f"{_OLD}: {run.title}",
        run.ending,
        checks=(
            Check("the kernel dies", run.crashed),
            Check("error code 3: a write to a page that is there but read-only", error == WRITE_TO_READ_ONLY),
            Check("the entry says so", fault.entry & (PRESENT | WRITABLE) == PRESENT),
            Check("the page is a spare one of the buffer", buffer.end <= frame < buffer.top),
            Check("all spare pages are read-only", buffer.read_only == len(buffer.spare)),
        ),
        story=(
            f"{buffer.told()}, for Xen takes no page table that can be written.",
            (
                f"They were given back as they are. The first write to one, at RIP {symbolic(run, fault.rip)} to "
                f"{fault.address:#x} in frame {frame:#x}, faults: error code {error} as the kernel is told, page-table "
                f"entry {fault.entry:#x} (present, not writable)."
            ),
        ),
        facts={
            "rip": f"{fault.rip:#x}",
            "fault_vector": fault.vector,
            "fault_address": f"{fault.address:#x}",
            "error_code": error,
            "entry": f"{fault.entry:#x}",
            "frame": frame,
            "buffer": (buffer.start, buffer.end, buffer.top),
            "words": run.words,
        },
        listings=(Listing("the kernel's console", (run.words,)),) if run.words else (),
    )


def _spare(fault: Fault, buffer: Buffer) -> bool:
    frame = ((fault.address or 0) - buffer.base) >> PAGE_SHIFT
    return fault.vector == PF and buffer.end <= frame < buffer.top


def with_the_hook(run: KernelRun, buffer: Buffer) -> Act:
    """Xen's function reserves what was used and makes the rest writable."""
    return works(
        Role.FIXED,
        f"{XEN} is called",
        run,
        (f"{buffer.told()} when {XEN} has returned: it reserved the used ones and made the rest writable.",),
        [
            Check("there were spare pages", buffer.top > buffer.end),
            Check("all of them can be written", len(buffer.spare) == buffer.top - buffer.end and not buffer.read_only),
        ],
    )

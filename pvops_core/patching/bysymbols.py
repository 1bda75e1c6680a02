"""The layout of a kernel's tables from its symbols, where it has no type information: 2.6.24 to 5.12.

The groups of ops are variables, the sites say from which number on each is counted, and the functions in the slots bear
the ops' names. What is left open, slots that do nothing above all, the order of the members decides.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from pvops_core.errors import ImageError
from pvops_core.images.dwarf import structure
from pvops_core.kinds import MachineKind
from pvops_core.ops import LAYOUTS, Convention, Layout, Slot
from pvops_core.ops.linux_ages import GROUPS, JUMPS, MARKS, MEMBERS, NEVER_BOTH, ONE_TABLE, members, op_of
from pvops_core.patching.fills import NOP_NAMES
from pvops_core.patching.members import CALLEE_SAVE, TEMPLATE

if TYPE_CHECKING:
    from pvops_core.images import KernelImage

DERIVED: Final = "symbols"
"""Name of a layout that is in the image and not in the catalogue."""

MOST_WAYS: Final = 4096
"""Ways to share slots out among groups that are looked at; a kernel has some ten."""

_SOURCES: Final = ("kernel/paravirt.c", "kernel/paravirt_32.c", "kernel/paravirt_64.c")
"""Where the tables are defined: from 2.6.24 to 2.6.25 in a source for each width."""

_STRUCTURE: Final = "paravirt_ops"
"""2.6.23's only table, and the structure that it is."""

MOST_SLOTS: Final = 255
"""A site's type is a byte."""

_SAME: Final = {
    "native_calibrate_tsc": "get_tsc_khz",
    "native_calculate_cpu_khz": "get_cpu_khz",
    "native_rdmsr_safe_regs": "rdmsr_regs",
    "native_wrmsr_safe_regs": "wrmsr_regs",
    "hpet_time_init": "time_init",
    "default_banner": "banner",
    "native_flush_tlb": "flush_tlb_user",
    "native_flush_tlb_global": "flush_tlb_kernel",
    "tlb_remove_page": "tlb_remove_table",
    "kmap_atomic": "kmap_atomic_pte",
    "native_pagetable_setup_start": "pagetable_setup_start",
    "__paravirt_pgd_alloc": "pgd_alloc",
    "__ptep_modify_prot_start": "ptep_modify_prot_start",
    "__ptep_modify_prot_commit": "ptep_modify_prot_commit",
}
"""Functions that bear another name than the op that they are."""

# A name that agrees outweighs skipped members; one that does not costs more than another can give.
_HIT, _MISS, _SKIP = 8, -12, (-2, -1, 0)
THUNK: Final = "__raw_callee_save_"
_IDENTITIES: Final = ("_paravirt_ident_32", "_paravirt_ident_64")
_FLAG: Final = frozenset({"save_fl", "restore_fl", "irq_disable", "irq_enable"})


def layout_from_symbols(image: KernelImage, slots: Mapping[int, int]) -> Layout | None:
    """The layout that symbols and sites give: the catalogue's own where it has the same slots.

    Args:
        image: the kernel.
        slots: type number to the address of the slot that sites call through.

    Returns:
        The layout; None where its groups are no variables with names, or no function in them bears an op's name.
    """
    kind = MachineKind.X86_64 if image.pointer_size == 8 else MachineKind.I386
    # Kernels from 2.6.24 on have groups, 2.6.23 one table.
    table = MEMBERS if any(group in image.symbols for group in GROUPS) else ONE_TABLE
    groups = [group for group in table if group in image.symbols]
    if not groups or not slots:
        return None
    # Slots of stable kernels that stand alone take no part in counting the groups out.
    alone = _alone(image, groups, slots)
    among = {type_: address for type_, address in slots.items() if type_ not in alone}
    placed = _placed(image, groups, among, min(alone, default=MOST_SLOTS)) if among else None
    if placed is None:
        return None
    paths: list[tuple[str, str, int, Convention]] = []
    hits = 0
    for group, count in placed:
        functions = _functions(image, image.symbols[group], count)
        score, names = _named(_members(image, table, group), functions)
        hits += score
        for number, (name, function) in enumerate(zip(names, functions, strict=True)):
            path = name if table is ONE_TABLE else f"{group}.{name}"
            convention = _convention(image, path, function)
            paths.append((path, group, number * image.pointer_size, convention))
    # They are numbered behind the groups (a stable kernel may not change a structure's length).
    for type_, name in sorted(alone.items()):
        if type_ != len(paths):
            return None
        paths.append((name, name, 0, _convention(image, name, "")))
    # No name agrees, or sites call slots that would not exist: better no layout than a guess.
    if hits <= 0 or len(paths) <= max(slots):
        return None
    return _made(paths, kind)


def layout_from_dwarf(image: KernelImage) -> Layout | None:
    """The layout that a kernel's DWARF gives: the catalogue's own where it has the same slots.

    ``struct paravirt_patch_template`` has all groups, by their variables' names to 4.18 and then by those of
    ``pv_ops``' members; 2.6.23 has one structure.
    """
    size = image.pointer_size
    template = structure(image, _SOURCES, TEMPLATE)
    found = template or structure(image, _SOURCES, _STRUCTURE)
    # Any member that is no pointer would shift the numbers of all behind it.
    if not found or [member.offset for member in found] != [number * size for number in range(len(found))]:
        return None
    kind = MachineKind.X86_64 if size == 8 else MachineKind.I386
    paths: list[tuple[str, str, int, Convention]] = []
    first: dict[str, int] = {}
    for member in found:
        # PV_CALLEE_SAVE wraps the function in a structure, so that the compiler does not call it by mistake.
        thunk = member.holder == CALLEE_SAVE
        path = member.path.removesuffix(".func") if thunk else member.path
        group = path.partition(".")[0]
        within = group if group in GROUPS or "." not in path else "pv_ops"
        symbol = within if template else _STRUCTURE
        offset = member.offset - first.setdefault(symbol, member.offset)
        convention = Convention.CALLEE_SAVE if thunk else _convention(image, path, "")
        paths.append((path, symbol, offset, convention))
    there = [symbol in image.symbols for _, symbol, _, _ in paths]
    if any(there):  # the structure counts spinlocks, whose group is last, in a kernel that has none
        del paths[len(there) - there[::-1].index(True) :]
    return _made(paths, kind)


def _members(image: KernelImage, table: Mapping[str, str], group: str) -> list[tuple[str, int]]:
    """The members that a group may have in a kernel."""
    absent = {path for mark, paths in MARKS.items() if mark not in image.symbols for path in paths}
    kind = MachineKind.X86_64 if image.pointer_size == 8 else MachineKind.I386
    return [each for each in members(table[group], kind) if f"{group}.{each[0]}" not in absent]


def _made(paths: Sequence[tuple[str, str, int, Convention]], kind: MachineKind) -> Layout:
    for layout in LAYOUTS.values():
        if [(slot.path, slot.symbol, slot.offset) for slot in layout.slots] == [path[:3] for path in paths]:
            return layout
    # A page's middle level is written with set_pud where there is one: PAE in 32 bits.
    if kind is MachineKind.I386 and any(path.endswith(".set_pud") for path, _, _, _ in paths):
        kind = MachineKind.PAE
    made = (
        Slot(number, op_of(path, kind, convention), path, symbol, offset)
        for number, (path, symbol, offset, convention) in enumerate(paths)
    )
    return Layout(DERIVED, kind, tuple(made), (), 2 * kind.pointer_size)


def _alone(image: KernelImage, groups: Sequence[str], slots: Mapping[int, int]) -> dict[int, str]:
    """Slots that are a variable each, behind the groups, where a stable kernel might not make a group longer.

    ``pv_mmu_lazy_mode_flush`` of 3.2.44 is one.
    """
    found = {}
    for type_, address in slots.items():
        name, distance = image.symbol_at(address) or ("", 0)
        # Tables of ops are pv_*; a distance would be a slot in the midst of one.
        if name.startswith("pv_") and not distance and name not in groups:
            found[type_] = name
    return found


def _placed(
    image: KernelImage, groups: Sequence[str], slots: Mapping[int, int], most: int
) -> list[tuple[str, int]] | None:
    """The groups in their order, and how many slots each has; None where the sites contradict one another."""
    size, rooms = image.pointer_size, {group: _room(image, group) for group in groups}
    starts: dict[str, int] = {}
    last: dict[str, int] = {}
    for type_, address in slots.items():
        group = next((each for each in groups if 0 <= address - image.symbols[each] < rooms[each] * size), None)
        if group is None:
            return None
        # Numbers grow with addresses within a group, so that every site of a group gives the same first number.
        start = type_ - (address - image.symbols[group]) // size
        if start < 0 or starts.setdefault(group, start) != start:
            return None
        last[group] = max(last.get(group, 0), type_ - start + 1)
    known = [group for group in groups if group in starts]
    # The template lists groups in the order of their numbers; another order contradicts it.
    if [starts[group] for group in known] != sorted(starts[group] for group in known):
        return None
    return list(_counts(groups, starts, last, rooms, most, image))


def _counts(
    groups: Sequence[str],
    starts: Mapping[str, int],
    last: Mapping[str, int],
    rooms: Mapping[str, int],
    most: int,
    image: KernelImage,
) -> Iterator[tuple[str, int]]:
    """How many slots each group has: up to the next one that sites place, those between shared out by their names."""
    at = index = 0
    while index < len(groups):
        following = next((n for n in range(index + 1, len(groups)) if groups[n] in starts), None)
        run = groups[index:following]
        if following is None:
            # Behind the last that is known: what lies up to the next symbol, so long as it may be slots.
            for group in run:
                count = max(last.get(group, 0), min(rooms[group], _filled(image, group, rooms[group])))
                # Never more than types that a byte holds.
                yield group, max(min(count, most - at), 0)
                at += max(min(count, most - at), 0)
            return
        total = starts[groups[following]] - at
        yield from zip(run, _shared(image, run, total, last, rooms), strict=True)
        at, index = starts[groups[following]], following


def _shared(
    image: KernelImage, run: Sequence[str], total: int, last: Mapping[str, int], rooms: Mapping[str, int]
) -> tuple[int, ...]:
    """So many slots shared out among groups: the way that fits the functions' names best."""
    choices = [range(last.get(group, 0), min(rooms[group], total) + 1) for group in run[:-1]]
    scores: dict[tuple[str, int], int] = {}

    def score(group: str, count: int) -> int:
        if (group, count) not in scores:
            functions = _functions(image, image.symbols[group], count)
            scores[group, count] = _named(_members(image, MEMBERS, group), functions)[0]
        return scores[group, count]

    found, best = (*(0 for _ in run[:-1]), total), -(1 << 30)
    # Ways grow with the product of the groups' sizes; the first some thousand decide all that is known.
    for counts in itertools.islice(itertools.product(*choices), MOST_WAYS):
        rest = total - sum(counts)
        # The last group gets what is left, and at least what sites need.
        if rest >= max(last.get(run[-1], 0), 0):
            whole = sum(itertools.starmap(score, zip(run, (*counts, rest), strict=True)))
            if whole > best:
                found, best = (*counts, rest), whole
    return found


def _room(image: KernelImage, group: str) -> int:
    """Slots between a group's symbol and the next one."""
    addresses = image.symbol_table.addresses
    start = image.symbols[group]
    following = bisect_right(addresses, start)
    end = addresses[following] if following < len(addresses) else start
    return min(max(end - start, 0) // image.pointer_size, MOST_SLOTS)


def _filled(image: KernelImage, group: str, room: int) -> int:
    """Slots up to the last that holds something."""
    functions = _functions(image, image.symbols[group], room)
    return max((number + 1 for number, function in enumerate(functions) if function), default=0)


def _functions(image: KernelImage, address: int, count: int) -> list[str]:
    """The function in each slot, by name; empty where it is none, or does nothing."""
    try:
        targets = image.pointers(address, max(count, 0))
    except ImageError:
        # What lies beyond the image is empty.
        return [""] * max(count, 0)
    found = []
    for target in targets:
        name, distance = (image.symbol_at(target) if target else None) or ("", 0)
        # A function that does nothing bears no op's name, so it says nothing.
        found.append("" if distance or name in NOP_NAMES else name)
    return found


def _bears(function: str, member: str) -> bool:
    """Whether a function bears an op's name, or one that is known to be its."""
    name = member.rpartition(".")[2]
    # Names of other ops are parts of longer names (load_gdt in xen_load_gdt): one that is known wins.
    return _SAME.get(function) == name or (_SAME.get(function) is None and name in function)


def _named(members: Sequence[tuple[str, int]], functions: Sequence[str]) -> tuple[int, list[str]]:
    """Names for slots, in the members' order, that fit the functions best; and how much better than none would."""
    ages = ([each for each in members if each[0].rpartition(".")[2] not in other] for other in NEVER_BOTH)
    fitted = [_fitted(wanted, functions) for wanted in ages if len(wanted) >= len(functions)]
    # More slots than members are known: a stranger's kernel, whose slots get numbers for names.
    if not fitted:
        return _MISS * len(functions), [f"slot{number}" for number in range(len(functions))]
    best, names = max(fitted, key=lambda found: found[0])
    return best - sum(_SKIP[missing] for _, missing in members), names


def _fitted(wanted: Sequence[tuple[str, int]], functions: Sequence[str]) -> tuple[int, list[str]]:
    """Likewise, of members that one kernel may have all of, no fewer than there are slots; how well, in all.

    A dynamic programme over slots and members: a member is a slot's, or left out, which costs less for some.
    """
    rows, columns = len(functions), len(wanted)
    skip = [_SKIP[missing] for _, missing in wanted]
    none = -(1 << 30)
    # An alignment of two lists, as of texts: members may be missing, slots may not.
    best = [[none] * (columns + 1) for _ in range(rows + 1)]
    best[0][0] = 0
    for row in range(rows + 1):
        for column in range(columns):
            here = best[row][column]
            if here == none:
                continue
            best[row][column + 1] = max(best[row][column + 1], here + skip[column])
            if row < rows:
                # An empty slot costs nothing, a name that does not agree much, so that members are skipped instead.
                function = functions[row]
                gain = 0 if not function or function in _IDENTITIES else _MISS
                if gain and _bears(function, wanted[column][0]):
                    gain = _HIT + len(wanted[column][0].rpartition(".")[2]) // 8
                best[row + 1][column + 1] = max(best[row + 1][column + 1], here + gain)
    names, row, column = [], rows, columns
    while column:
        # Back along the way that gave the best, a skipped member first.
        if best[row][column - 1] != none and best[row][column] == best[row][column - 1] + skip[column - 1]:
            column -= 1
            continue
        row, column = row - 1, column - 1
        names.append(wanted[column][0])
    return best[rows][columns], names[::-1]


def _convention(image: KernelImage, path: str, function: str) -> Convention:
    """How an op is called, by what its slot holds.

    From 2.6.30 on, when the functions that give their argument back came, those of the interrupt flag keep registers
    too, on i386 without a thunk.
    """
    member = path.rpartition(".")[2]
    if member in JUMPS:
        return Convention.JUMP
    # Thunks keep every register but the result, which is what PV_CALLEE_SAVE promises.
    if function.startswith(THUNK) or function in _IDENTITIES:
        return Convention.CALLEE_SAVE
    if member in _FLAG and any(name in image.symbols for name in _IDENTITIES):
        return Convention.CALLEE_SAVE
    return Convention.SYSV if image.pointer_size == 8 else Convention.REGPARM3

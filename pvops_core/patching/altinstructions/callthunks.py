"""Call thunks: on a CPU whose return stack must not run empty, calls go through code that counts how deep they are.

Every function has padding before it. ``callthunks_patch_builtin_calls`` (arch/x86/kernel/callthunks.c, since 6.2) puts
a few bytes there, and lets the calls that objtool lists in ``.call_sites``, and those that alternatives made, begin
with them; so a call's operand becomes less by their size. 6.12 does it after alternatives, 7.2 before.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.patching.altinstructions.capabilities import CALL_DEPTH
from pvops_core.patching.altinstructions.returns import branch_target, sites
from pvops_core.patching.code.relocation import BRANCH_SIZE
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pvops_core.images import KernelImage
    from pvops_core.patching.text import Text

SECTION: Final = ".call_sites"
STEP, ALTERNATIVES, WHOLE = "callthunks_patch_builtin_calls", "apply_alternatives", "alternative_instructions"
TEMPLATE: Final = ("skl_call_thunk_template", "skl_call_thunk_tail")
CORE: Final = ("_text", "_etext")
"""Text whose calls are patched, if they lead to text that stays too."""

PASSED_OVER: Final = (
    "error_entry",
    "paranoid_entry",
    "xen_error_entry",
    "__switch_to_asm",
    "ret_from_fork",
    "ret_from_fork_asm",
    "start_cpu0",
    "soft_restart_cpu",
    "__fentry__",
)
"""``skip_addr``: functions that count themselves, or must not be counted; those in :data:`PAGES` are others."""

PAGES: Final = ("relocate_kernel", "hypercall_page")

CALL: Final = b"\xe8"
NOP: Final = b"\x90"
_LONGEST: Final = 32
"""The most bytes of padding that a kernel looks at."""

_WHOLE_SIZE: Final = 0x400
"""Bytes of ``alternative_instructions`` that are looked through for calls of its steps; it has half of that."""


def takes_call_thunks(image: KernelImage, features: frozenset[int]) -> bool:
    """Whether a kernel leads calls through thunks on a CPU."""
    # Without the list of call sites the kernel was built without CONFIG_CALL_THUNKS.
    if CALL_DEPTH not in features or image.section(SECTION) is None:
        return False
    symbols = image.symbols
    start, end = (symbols.get(name, 0) for name in TEMPLATE)
    return {STEP, *CORE} <= symbols.keys() and 0 < end - start <= _LONGEST


def before_alternatives(image: KernelImage) -> bool:
    """Whether a kernel does that before it follows alternatives: as its code calls the two."""
    symbols = image.symbols
    start = symbols.get(WHOLE)
    section = image.section_at(start) if start is not None else None
    if start is None or section is None or not section.in_file:
        return False
    # Read as far as both calls can be: where a compiler has put the function ends is not known.
    code = image.read(start, min(_WHOLE_SIZE, section.address + section.size - start))
    # Any E8 counts, also one inside another instruction: what it leads to is no step's address then.
    calls = (match.start() for match in re.finditer(CALL, code[: 1 - BRANCH_SIZE]))
    order = [branch_target(start + at, code[at : at + BRANCH_SIZE]) for at in calls]
    places = [order.index(symbols[name]) if symbols.get(name) in order else -1 for name in (STEP, ALTERNATIVES)]
    # -1 stands for a step that is not called there, which was put into the function instead.
    return -1 < places[0] < places[1]


def apply_call_thunks(image: KernelImage, text: Text, places: Iterable[int]) -> int:
    """Lead every call that is listed through the thunk of the function that it calls; how many were changed.

    Args:
        image: the kernel.
        text: its text, which changes.
        places: of its ALTERNATIVEs and its calls of ops, some of which are calls and are not listed with the others.
    """
    thunks = _Thunks.of(image)
    core, changed = thunks.core, 0
    for address in itertools.chain(sites(image, SECTION, BRANCH_SIZE), dict.fromkeys(places)):
        code = text.read(address, BRANCH_SIZE) if address in core else b""
        if code[:1] != CALL or not thunks.has(target := branch_target(address, code)):
            # Only who has the padding can be entered before its begin.
            continue
        # The operand leads that many bytes before the function, where its own count stands.
        operand = target - thunks.size - address - BRANCH_SIZE
        text.write(address, CALL + operand.to_bytes(BRANCH_SIZE - 1, "little", signed=True))
        changed += 1
    return changed


@attrs.define
class _Thunks:
    """Which functions have one.

    Attributes:
        image: the kernel.
        core: text whose calls are patched, where they lead to such text.
        size: bytes of a thunk.
        passed_over: functions that get none.
        known: what was found out already.
    """

    image: KernelImage
    core: range
    size: int
    passed_over: frozenset[int]
    known: dict[int, bool] = attrs.field(factory=dict)

    @classmethod
    def of(cls, image: KernelImage) -> _Thunks:
        symbols = image.symbols
        start, end = (symbols[name] for name in TEMPLATE)
        passed_over = frozenset(symbols[name] for name in PASSED_OVER if name in symbols)
        return cls(image, range(*(symbols[name] for name in CORE)), end - start, passed_over)

    def has(self, target: int) -> bool:
        """Whether a function has one: it has got the padding, and is not passed over."""
        found = self.known.get(target)
        if found is None:
            counted = target in self.core and target not in self.passed_over and not self._paged(target)
            found = counted and self.image.read(target - self.size, self.size) == NOP * self.size
            self.known[target] = found
        return found

    def _paged(self, target: int) -> bool:
        symbols = self.image.symbols
        # PAGE bytes from each symbol: skip_addr passes over whole pages, whatever is in them.
        return any(0 <= target - symbols.get(name, target + 1) < PAGE for name in PAGES)

"""Accesses through segments, in 32-bit code: limits, null selectors, read-only data, expand-down, code segments.

The engine checks nothing of it. Each block that it translates while such a segment is loaded is looked at, and each
instruction that may go wrong through one gets a hook of its own, which checks the access before it is made. So only
what goes through such a segment pays; an address that is a number in the instruction and within the limit, as a
kernel's stack canary is, pays nothing. Data in a code segment is looked at even where that is flat: it is never
written, and read only if its type says so; only an instruction that may be refused pays.

On a 64-bit machine all this begins with the first block of 32-bit code.

It is decided when code is translated. What follows a load of a segment register in its block is checked whatever is
loaded, and when a load brings limits that were not seen before, all code is translated anew: after a load by 64-bit
code when the next block of 32-bit code is translated. So what is not noticed is code that has been translated since
then while the segment was flat. Fetches are not checked against CS's limit.
Source: Intel SDM volume 3, 5.3 (limits), 5.4.1 (null selectors) and 5.5; 3.4.5.1 (types).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu import faults
from pvops_core.machine.cpu.faults import GuestFault
from pvops_core.machine.cpu.memory.decode import Touch, accesses, disassembled, touches
from pvops_core.machine.cpu.segmentation.segments import allows
from pvops_core.machine.engines import (
    CODE_SEGMENT,
    DATA_SEGMENTS,
    HOOK_CODE,
    HOOK_TRANSLATED,
    GuardWords,
    StateWord,
    segment_guards,
)
from pvops_core.x86 import CR0_PE, PAGE

if TYPE_CHECKING:
    from pvops_core.machine.engines import Context
    from pvops_core.machine.exits.handlers import Handlers

# The register's number in the middle: es, ss, ds, fs, gs; not cs
_TO_SEGMENT: Final = bytes(modrm for modrm in range(256) if modrm >> 3 & 7 in {0, 2, 3, 4, 5})
_LOADS: Final = re.compile(
    rb"\x8e[" + re.escape(_TO_SEGMENT) + rb"]|\x0f[\xa1\xa9\xb2\xb4\xb5]|[\x07\x17\x1f]$", re.DOTALL
)
"""Bytes that may be loads of segment registers."""
_LOADING: Final = {"lds": "ds", "les": "es", "lfs": "fs", "lgs": "gs", "lss": "ss"}
_PREFIXES: Final = {"fs": b"\x64", "gs": b"\x65"}
_CODE_PREFIX: Final = b"\x2e"
_BUDGET, _ALLOWED, _EXPIRED, _STEPPING = (
    int(slot) for slot in (StateWord.BUDGET, StateWord.ALLOWED, StateWord.EXPIRED, StateWord.STEPPING)
)
_WHOLE: Final = 1 << 32
_FIRST: Final = 256
"""Bytes of the first block that are looked at."""


class SegmentLimits:
    """The checks of one vCPU.

    Args:
        handlers: how Python is called for it.
        context: a context of its own.
    """

    def __init__(self, handlers: Handlers, context: Context) -> None:
        vcpu, engine, guarded = handlers.vcpu, handlers.engine, handlers.guarded
        self._vcpu = vcpu
        self._engine = engine
        self._state = handlers.state
        self._restart = handlers.restart
        self._hooks: dict[int, frozenset[str]] = {}
        self._standing: set[tuple[int, int]] = set()
        """Other hooks: place and function."""
        self._seen: set[int] = set()
        self._loads_unseen = vcpu.machine.kind.bits == 64
        """A 64-bit kernel loads segment registers for 32-bit code, and its own code is not looked at."""
        self._kept: tuple[int, int] | None = None
        self._fault: GuestFault | None = None
        native = segment_guards()
        self._native = native
        self._words = GuardWords(engine, context, vcpu.machine.layout, vcpu.machine.memory.address)
        self._words.call_back(guarded(self._look), guarded(self._check), guarded(self._changed))
        engine.hook_native(HOOK_TRANSLATED, native.translated, self._words.address)

    def refused(self) -> GuestFault | None:
        """The fault because of which the engine has just left, if it was for this."""
        fault, self._fault = self._fault, None
        if fault is not None:
            # The way out has cost ECX, which the hook kept before.
            self._vcpu.set("ecx", self._words.ecx)
        return fault

    # While blocks are translated

    def begin(self) -> None:
        """The engine is about to start: until a block has led it to another, it tells nobody what it translates."""
        # Once the engine tells of blocks, the first was told too.
        if self._words.told:
            return
        if self._vcpu.in_64_bit_code:
            # 64-bit code knows no limits (SDM volume 3, 5.3.1).
            return
        rip = self._vcpu.rip
        start = rip + self._vcpu.segment("cs")[1] & 0xFFFFFFFF
        if self._vcpu.cr0 & CR0_PE:
            self._words.look()
            try:
                code = self._vcpu.virtual.read(start, PAGE - start % PAGE, system=True)
            except GuestFault:
                # A fetch that faults here faults in the guest as well, and nothing was translated.
                return
            self._guard(start, code[:_FIRST])

    def look(self, start: int, size: int) -> None:
        """Look at a block that has been translated, and not yet run, of which no hook of these has told."""
        self._words.look()
        self._look(start, size)

    def _look(self, start: int, size: int) -> None:
        """A block has been translated, and not yet run."""
        # Loads by 64-bit code go unseen, so what they brought is noticed with the next block of 32-bit code.
        if self._loads_unseen and self._words.special:
            self._changed()
        if self._guard(start, self._vcpu.virtual.read(start, size, system=True)):
            self._restart()

    def _changed(self) -> bool:
        """A segment register has been loaded: what was translated before these limits were first seen is forgotten."""
        state = self._state
        if self._words.special and self._words.state not in self._seen:
            self._seen.add(self._words.state)
            if self._kept is None:
                self._kept = (state[_BUDGET] + 1, state[_STEPPING])
                # The budget goes to the slice after the pause, so that the pause costs the guest no time.
                state[_ALLOWED] -= self._kept[0]
                state[_BUDGET], state[_STEPPING] = -1, 2  # the slice is to pause where the next block begins
        return False

    def goes_on(self) -> bool:
        """The engine has stopped: if a pause is under way, it is over, and whether it was for that alone."""
        if self._kept is None:
            return False
        state, paused = self._state, bool(self._state[_EXPIRED])
        more, state[_STEPPING] = self._kept
        state[_ALLOWED] += more
        state[_BUDGET] += more
        state[_EXPIRED] = 0
        self._kept = None
        self._engine.flush_code()
        return paused

    def _guard(self, start: int, code: bytes) -> bool:
        """Put hooks into a piece of code; whether there are new ones."""
        special = self._words.special
        telling = (_CODE_PREFIX, *(_PREFIXES.get(name, b"") for name in special))
        doubtful: dict[int, frozenset[str]] = {}
        wanted: set[tuple[int, int]] = set()
        if any(prefix in code for prefix in telling) or _LOADS.search(code):
            doubtful, behind = self._doubtful(start, code, special)
            wanted |= {(at, self._native.loaded) for at in behind}
        new = sorted(wanted - self._standing)
        for at, names in doubtful.items():
            if not names <= self._hooks.get(at, frozenset()):
                self._hooks[at] = names
                new.append((at, self._native.checked[names]))
        self._standing |= wanted
        for at, function in new:
            self._engine.hook_native(HOOK_CODE, function, self._words.address, at, at)
            self._drop(at)
        return bool(new)

    def _drop(self, address: int) -> None:
        """Forget what was translated of an instruction, if it can be fetched: else nothing was."""
        try:
            self._vcpu.walk(address, fetch=True)
        except GuestFault:
            return
        self._engine.remove_code(address, address + 1)

    def _doubtful(self, start: int, code: bytes, special: frozenset[str]) -> tuple[dict[int, frozenset[str]], set[int]]:
        """The instructions that must be checked when they come, with their segments, and the places behind loads."""
        loaded: set[str] = set()
        doubtful, behind = {}, set()
        for found in disassembled(code, start, 32):
            touched = {touch.segment for touch in touches(found) if not self._fine(touch, special, loaded)}
            if touched:
                several = (*DATA_SEGMENTS, CODE_SEGMENT) if CODE_SEGMENT in touched else DATA_SEGMENTS
                doubtful[found.address] = frozenset(touched if len(touched) == 1 else several)
            loads = _LOADING.get(found.mnemonic, found.op_str.split(",")[0])
            if loads in DATA_SEGMENTS and found.mnemonic in {"mov", "pop", *_LOADING}:
                behind.add(found.address + found.size & 0xFFFFFFFF)
                loaded.add(loads)
        return doubtful, behind

    def _fine(self, touch: Touch, special: frozenset[str], loaded: set[str]) -> bool:
        """Nothing can go wrong, as far as is known when a block is translated."""
        if touch.segment in loaded:
            return False
        if touch.segment == CODE_SEGMENT:
            known = touch.offset is not None
            return self._allows(CODE_SEGMENT, touch.offset or 0, touch.size if known else _WHOLE, write=touch.write)
        if touch.segment not in special:
            return True
        return touch.offset is not None and self._allows(touch.segment, touch.offset, touch.size, write=touch.write)

    def _allows(self, segment: str, offset: int, size: int, *, write: bool) -> bool:
        limit, high = self._words.segment(segment)
        return allows(limit, high, offset, size, write=write)

    # While they run

    def _check(self) -> bool:
        """Before an instruction with a hook: whether it is refused."""
        if self._vcpu.in_64_bit_code:
            return False
        for access in accesses(self._vcpu):
            _, _, limit, high = self._vcpu.segment(access.segment)
            if not allows(limit, high, access.offset, access.size, write=access.write):
                vector = faults.SS if access.segment == "ss" else faults.GP
                where = f"{access.segment}:{access.offset:#x}"
                self._fault = GuestFault(f"{where} is outside its segment", vector=vector, error_code=0)
                return True
        return False

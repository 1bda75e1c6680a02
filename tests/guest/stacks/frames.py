"""Tables of ORC and stacks made for tests."""

from __future__ import annotations

import numpy as np

from pvops_core.guest.stacks.orc import NUMBERED, Base, Orc, OrcKind

ENTRY = np.dtype([("sp_offset", "<i2"), ("bp_offset", "<i2"), ("bits", "<u2")])
TEXT, STACK, IRQ_STACK = 0xFFFFFFFF81000000, 0xFFFFC90000004000, 0xFFFFC90000100000
SIGNAL = 1 << 11
OLD = {OrcKind.CALL: 0, OrcKind.REGS: 1, OrcKind.PARTIAL: 2}
NEW = {OrcKind.UNKNOWN: 0, OrcKind.END: 1, OrcKind.CALL: 2, OrcKind.REGS: 3, OrcKind.PARTIAL: 4}


def bits(sp: Base, bp: Base, kind: OrcKind, *, header: bool, numbered: int = 0) -> int:
    both = NUMBERED[numbered].index(sp) | NUMBERED[numbered].index(bp) << 4
    if header:
        return both | NEW[kind] << 8 | (SIGNAL if kind in {OrcKind.REGS, OrcKind.PARTIAL} else 0)
    return both | (1 << 10 if kind is OrcKind.END else OLD.get(kind, 0) << 8)


Line = tuple[int, Base, int, Base, int, OrcKind]


def tables(*lines: Line, header: bool, numbered: int = 0) -> Orc:
    """From (offset in text, base and offset of the stack pointer, of the frame pointer, kind)."""
    places = np.array([TEXT + line[0] for line in lines], dtype=np.uint64)
    rows = [
        (sp_offset, bp_offset, bits(sp, bp, kind, header=header, numbered=numbered))
        for _, sp, sp_offset, bp, bp_offset, kind in lines
    ]
    return Orc(places, np.array(rows, dtype=ENTRY), header=header)


LINES: tuple[Line, ...] = (
    (0x000, Base.UNDEFINED, 0, Base.UNDEFINED, 0, OrcKind.END),  # where a task begins
    (0x100, Base.SP, 8, Base.UNDEFINED, 0, OrcKind.CALL),  # has pushed nothing
    (0x101, Base.SP, 16, Base.PREV_SP, -16, OrcKind.CALL),  # push rbp
    (0x104, Base.BP, 16, Base.PREV_SP, -16, OrcKind.CALL),  # mov rbp, rsp
    (0x200, Base.SP, 0, Base.UNDEFINED, 0, OrcKind.REGS),  # in an exception's entry code
    (0x300, Base.SP, 0, Base.UNDEFINED, 0, OrcKind.PARTIAL),
    (0x400, Base.SP_INDIRECT, 8, Base.UNDEFINED, 0, OrcKind.CALL),  # on another stack, whose top has the pointer
    (0x500, Base.R10, 0, Base.UNDEFINED, 0, OrcKind.CALL),
    (0x600, Base.UNDEFINED, 0, Base.UNDEFINED, 0, OrcKind.UNKNOWN),
)

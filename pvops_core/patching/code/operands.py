"""The operand of a call through a table of ops."""

from __future__ import annotations


def slot_operand(code: bytes, address: int, pointer_size: int) -> int | None:
    """The table slot that a site calls or jumps through, where its operand is an address and not a register's.

    Args:
        code: the site's bytes, unpatched.
        address: its virtual address.
        pointer_size: 8 for x86_64, where ``ff 15`` and ``ff 25`` count from the next instruction; 4 for i386.
    """
    # Any length before the opcode: a segment prefix, or pushes of the site's registers.
    for at in range(len(code) - 5):
        if code[at] != 0xFF:  # of ff the middle of ModRM is 2 for a call, 4 for a jump
            continue
        # Mod 00B, r/m 101B: an address of 32 bits, relative to RIP in 64-bit code (SDM volume 2, 2.2.1.6).
        if code[at + 1] in {0x15, 0x25}:
            operand = int.from_bytes(code[at + 2 : at + 6], "little", signed=True)
            base = address + at + 6 if pointer_size == 8 else 0
            return (base + operand) & ((1 << 8 * pointer_size) - 1)
        # An SIB byte without base and index: an absolute address in 64-bit code too (SDM volume 2, 2.2.1.6).
        if pointer_size == 8 and code[at + 1] in {0x14, 0x24} and code[at + 2] == 0x25 and at + 7 <= len(code):
            operand = int.from_bytes(code[at + 3 : at + 7], "little", signed=True)
            return operand & ((1 << 64) - 1)
    return None

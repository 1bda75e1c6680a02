"""The hypercall page: one stub of 32 bytes a hypercall number (xen/arch/x86/pv/hypercall.c)."""

from __future__ import annotations

from typing import Final

from pvops_xen.hypervisor.abi import PAGE_SIZE, TRAP_SYSCALL_HYPERCALL32, Hypercall

STUB: Final = 32
_PUSH_RCX, _PUSH_R11, _PUSH_RAX = b"\x51", b"\x41\x53", b"\x50"
_POP_RCX, _POP_R11 = b"\x59", b"\x41\x5b"
_MOV_EAX, _SYSCALL, _INT, _RET = b"\xb8", b"\x0f\x05", bytes((0xCD, TRAP_SYSCALL_HYPERCALL32)), b"\xc3"
_INT3: Final = b"\xcc"


def hypercall_page(bits: int) -> bytes:
    """The whole page for a guest's width. The stub of iret leaves what it pushed on the stack and does not return."""
    return b"".join(_stub(bits, number).ljust(STUB, _INT3) for number in range(PAGE_SIZE // STUB))


def _stub(bits: int, number: int) -> bytes:
    load = _MOV_EAX + number.to_bytes(4, "little")
    if bits == 32:
        return _PUSH_RAX + load + _INT if number == Hypercall.IRET else load + _INT + _RET
    if number == Hypercall.IRET:
        return _PUSH_RCX + _PUSH_R11 + _PUSH_RAX + load + _SYSCALL
    return _PUSH_RCX + _PUSH_R11 + load + _SYSCALL + _POP_R11 + _POP_RCX + _RET

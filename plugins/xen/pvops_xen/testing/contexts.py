"""Contexts for another vCPU of a small guest: vcpu_guest_context as its kernel would fill it in, with changes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor.abi import PAGE_SIZE, VGCF_IN_KERNEL, Hypercall, VcpuOp
from pvops_xen.hypervisor.layout import GUEST_CONTEXT32, GUEST_CONTEXT64, USER_REGS32, USER_REGS64
from pvops_xen.testing.guests import KERNEL_SELECTORS

if TYPE_CHECKING:
    from pvops_xen.testing.guests import GuestOutcome, SmallGuest

_LAYOUTS: Final = {64: (GUEST_CONTEXT64, USER_REGS64), 32: (GUEST_CONTEXT32, USER_REGS32)}
_PAGE: Final = 6
"""The first of two of the guest's own pages that hold the context."""


def guest_context(g: SmallGuest, **changes: int) -> bytes:
    """A context that begins at the page ``probe`` with the handlers and the root of the first vCPU.

    ``changes`` are fields by name (``ldt_base``), registers by name (``cs``; ``ip``, ``sp`` and ``flags_register`` in
    both widths), elements of a row (``ctrlreg1``), and addresses of the trap table (``trap6``).
    """
    layout, names = _LAYOUTS[g.bits]
    letter, (cs, ss), root = "r" if g.bits == 64 else "e", KERNEL_SELECTORS[g.bits], g.hv.space.root(0)
    cr3 = root << 12 if g.bits == 64 else root << 12 | root >> 20
    values = {"flags": VGCF_IN_KERNEL, "ctrlreg3": cr3, "cs": cs, "ss": ss, "ds": ss, "es": ss, "ip": g.va("probe")}
    values |= {"sp": g.va("stack") + PAGE_SIZE, "kernel_ss": ss, "kernel_sp": g.va("entry_stack") + PAGE_SIZE}
    raw = bytearray(layout.size)
    _fill_traps(g, raw, layout.trap_ctxt)
    for name, value in (values | changes).items():
        register = {"ip": f"{letter}ip", "sp": f"{letter}sp", "flags_register": f"{letter}flags"}.get(name, name)
        stem = name.rstrip("0123456789")
        if register in names:
            offset = layout.user_regs + names.index(register) * g.word
        elif stem == "trap":
            offset = layout.trap_ctxt + int(name[4:]) * g.hv.abi.trap_info_size + g.word
        else:
            offset = getattr(layout, stem) + g.word * int(name[len(stem) :] or 0)
        raw[offset : offset + g.word] = (value & g.hv.abi.mask).to_bytes(g.word, "little")
    return bytes(raw)


def _fill_traps(g: SmallGuest, raw: bytearray, offset: int) -> None:
    form, size = ("<BBH4xQ" if g.bits == 64 else "<BBHI"), g.hv.abi.trap_info_size
    for vector in range(20):
        struct.pack_into(
            form, raw, offset + vector * size, vector, 4, KERNEL_SELECTORS[g.bits][0], g.labels[f"h{vector}"]
        )


def initialise(g: SmallGuest, raw: bytes, index: int = 1) -> int:
    """Have the kernel make the call for another vCPU: the result."""
    area = g.put(_PAGE, raw[:PAGE_SIZE])
    g.put(_PAGE + 1, raw[PAGE_SIZE:].ljust(1, b"\0"))
    return g.call(Hypercall.VCPU_OP, VcpuOp.INITIALISE, index, area)


def start(g: SmallGuest, code: str, *, max_ns: int = 10**8, **changes: int) -> GuestOutcome:
    """Have another vCPU execute code: how that ends.

    Raises:
        AssertionError: Xen does not take its context.
    """
    error = initialise(g, guest_context(g, **changes))
    if error:
        raise AssertionError(f"VCPUOP_initialise: {error}")
    g.place(f"probe:\n{code}\n 1: pause\n jmp 1b")
    return g.bring_up(1, max_ns)

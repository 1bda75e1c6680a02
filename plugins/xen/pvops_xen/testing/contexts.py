"""Contexts for another vCPU of a small guest: vcpu_guest_context as its kernel would fill it in, with changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor.abi import PAGE_SIZE, VGCF_IN_KERNEL, Hypercall, VcpuOp
from pvops_xen.hypervisor.layout import GUEST_CONTEXT
from pvops_xen.testing.guests import KERNEL_SELECTORS

if TYPE_CHECKING:
    from pvops_xen.testing.guests import GuestOutcome, SmallGuest

_REGISTERS: Final = frozenset(["rip", "rsp", "rflags", "eip", "esp", "eflags", "cs", "ss", "ds", "es", "fs", "gs"])
_PAGE: Final = 6
"""The first of two of the guest's own pages that hold the context."""


def guest_context(g: SmallGuest, **changes: int) -> bytes:
    """A context that begins at the page ``probe`` with the handlers and the root of the first vCPU.

    ``changes`` are fields by name (``ldt_base``), registers by name (``cs``; ``ip``, ``sp`` and ``flags_register`` in
    both widths), elements of a row (``ctrlreg1``), and addresses of the trap table (``trap6``).
    """
    letter, (cs, ss), root = "r" if g.bits == 64 else "e", KERNEL_SELECTORS[g.bits], g.hv.space.root(0)
    cr3 = root << 12 if g.bits == 64 else root << 12 | root >> 20
    values = {"flags": VGCF_IN_KERNEL, "ctrlreg3": cr3, "cs": cs, "ss": ss, "ds": ss, "es": ss, "ip": g.va("probe")}
    values |= {"sp": g.va("stack") + PAGE_SIZE, "kernel_ss": ss, "kernel_sp": g.va("entry_stack") + PAGE_SIZE}
    context = GUEST_CONTEXT.over(bytearray(GUEST_CONTEXT.size(g.bits)), g.bits)
    for vector in range(20):
        entry = f"trap_ctxt[{vector}]"
        context[f"{entry}.vector"], context[f"{entry}.flags"], context[f"{entry}.cs"] = vector, 4, cs
        context[f"{entry}.address"] = g.labels[f"h{vector}"]
    for name, value in (values | changes).items():
        context[_path(letter, name)] = value
    return bytes(context.raw)


def _path(letter: str, name: str) -> str:
    """Where the structure has what :func:`guest_context` calls so."""
    register = {"ip": f"{letter}ip", "sp": f"{letter}sp", "flags_register": f"{letter}flags"}.get(name, name)
    if register in _REGISTERS:
        return f"user_regs.{register}"
    stem = name.rstrip("0123456789")
    number = name[len(stem) :]
    if stem == "trap":
        return f"trap_ctxt[{number}].address"
    if stem.endswith("_callback"):
        return f"{stem}_eip"
    return f"{stem}[{number}]" if number else stem


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

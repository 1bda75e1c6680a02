"""Descriptors: tables that are none, gates and segments that would lead to Xen's ring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor.abi import PAGE_SHIFT, MmuExt
from pvops_xen.hypervisor.memory import entries as pte
from pvops_xen.testing.rules.case import Collection, Errno, Gives, Trap

if TYPE_CHECKING:
    from pvops_xen.testing.guests import GuestOutcome, SmallGuest

GP, PF, SS = 13, 14, 12
_RING0_CODE: Final = 0x00CF_9B00_0000_FFFF
_RING0_CODE64: Final = 0x00AF_9B00_0000_FFFF
_DATA: Final = 0x00CF_F300_0000_FFFF
case = CASES = Collection()


def _system(kind: int, selector: int = 0) -> int:
    """A present system descriptor of DPL 3."""
    return 0xE000 << 32 | kind << 40 | selector << 16


def _far_jump(g: SmallGuest, selector: int) -> GuestOutcome:
    """To the next instruction; 64-bit code has no jump to an immediate selector, so it returns to it."""
    return g.execute(
        f"push {selector:#x}\n push offset there\n .byte 0x48, 0xcb\n there: nop"
        if g.bits == 64
        else f".byte 0xea\n .long there\n .word {selector:#x}\n there: nop"
    )


def _in_gdt(g: SmallGuest, *descriptors: int) -> int:
    """Make a page with these descriptors the GDT."""
    g.put(0, b"".join(value.to_bytes(8, "little") for value in descriptors))
    g.protect(0)
    return g.set_gdt(g.mfn(0))


case("a GDT that is mapped writable", "get_page_and_type: PGT_seg_desc_page", Errno("EINVAL"))(
    lambda g: g.set_gdt(g.mfn(0))
)
case("a GDT in a page table", "get_page_and_type: PGT_seg_desc_page", Errno("EINVAL"))(lambda g: g.set_gdt(g.table(1)))
case("a GDT in a frame of Xen's", "pv_set_gdt", Errno("EINVAL"))(lambda g: g.set_gdt(g.hv.m2p >> PAGE_SHIFT))
case("a GDT beyond memory", "pv_set_gdt", Errno("EINVAL"))(lambda g: g.set_gdt(len(g.hv.frames)))
case("a GDT that reaches into Xen's entries", "do_set_gdt: FIRST_RESERVED_GDT_ENTRY", Errno("EINVAL"))(
    lambda g: g.set_gdt(g.mfn(0), entries=14 * 512 + 1)
)


for _kind, _what in ((9, "a TSS"), (2, "an LDT"), (0xE, "an interrupt gate"), (5, "a task gate"), (0xF, "a trap gate")):
    case(f"a GDT with {_what}", "check_descriptor: only call gates", Errno("EINVAL"))(
        lambda g, kind=_kind: _in_gdt(g, 0, _system(kind))  # type: ignore[misc]
    )


case("a GDT with a call gate to Xen's code", "guest_gate_selector_okay", Errno("EINVAL"))(
    lambda g: _in_gdt(g, 0, _system(0xC, 0xE008))
)
case("a 64-bit code segment in a 32-bit guest", "check_descriptor: L", Errno("EINVAL"), 32)(
    lambda g: _in_gdt(g, 0, _RING0_CODE64)
)


@case("a GDT with a ring 0 code segment", "check_descriptor: DPL", Gives("taken with the DPL of the guest's kernel"))
def _(g: SmallGuest) -> bool:
    ring = 3 if g.bits == 64 else 1
    done = _in_gdt(g, 0, _RING0_CODE)
    return done == 0 and g.u64((g.mfn(0) << PAGE_SHIFT) + 8) >> 45 & 3 == ring


@case("a far jump through a ring 0 segment of the GDT", "check_descriptor: DPL", Trap(GP, 8))
def _(g: SmallGuest) -> GuestOutcome:
    _in_gdt(g, 0, _DATA)
    return _far_jump(g, 8)


@case("a far call through a call gate", "check_descriptor: gates have DPL 0", Trap(GP, 8))
def _(g: SmallGuest) -> GuestOutcome:
    selector = 0xE033 if g.bits == 64 else 0xE019
    _in_gdt(g, 0, _system(0xC, selector), 0)
    if g.bits == 32:
        return g.execute("lcall 8, 0")
    pointer = g.put("data", bytes(4) + (8).to_bytes(2, "little"))
    return g.execute("lcall [rdi]", rdi=pointer)


@case("a writable mapping of a page of the GDT", "get_page_from_l1e", Errno("EBUSY"))
def _(g: SmallGuest) -> int:
    _in_gdt(g, 0)
    return g.update_va_mapping(g.va(0), g.mfn(0) << PAGE_SHIFT | pte.P | pte.RW)


case("a descriptor at an unaligned address", "do_update_descriptor", Errno("EINVAL"))(
    lambda g: g.update_descriptor((g.mfn(0) << PAGE_SHIFT) + 4, _DATA)
)


@case("a TSS by update_descriptor", "check_descriptor", Errno("EINVAL"))
def _(g: SmallGuest) -> int:
    _in_gdt(g, 0)
    return g.update_descriptor((g.mfn(0) << PAGE_SHIFT) + 8, _system(9))


case("a descriptor in a page table", "do_update_descriptor: get_page_type", Errno("EINVAL"))(
    lambda g: g.update_descriptor(g.l1e(0), _DATA)
)
case("a descriptor in a frame of Xen's", "do_update_descriptor: get_page", Errno("EINVAL"))(
    lambda g: g.update_descriptor(g.hv.m2p, _DATA)
)
case("a descriptor beyond memory", "do_update_descriptor", Errno("EINVAL"))(
    lambda g: g.update_descriptor(len(g.hv.frames) << PAGE_SHIFT, _DATA)
)
case("an LDT at an unaligned address", "MMUEXT_SET_LDT", Errno("EINVAL"))(
    lambda g: g.mmuext((MmuExt.SET_LDT, g.va(0) + 8, 1))
)
case("an LDT of 8193 entries", "MMUEXT_SET_LDT", Errno("EINVAL"))(lambda g: g.mmuext((MmuExt.SET_LDT, g.va(0), 8193)))
case("an LDT at an address of Xen's", "MMUEXT_SET_LDT: __addr_ok", Errno("EINVAL"), 64)(
    lambda g: g.mmuext((MmuExt.SET_LDT, g.hv.abi.m2p_start, 1))
)


@case("an LDT where Xen's addresses start", "MMUEXT_SET_LDT: __addr_ok", Gives("taken; #PF there when used"), 32)
def _(g: SmallGuest) -> bool:
    taken = g.mmuext((MmuExt.SET_LDT, g.hv.abi.m2p_start, 1)) == 0
    outcome = g.execute("mov eax, 4\n mov es, eax")
    return taken and (outcome.vector, outcome.cr2) == (PF, g.hv.abi.m2p_start)


@case("a selector of an LDT page that is mapped writable", "pv_map_ldt_shadow_page", Trap(PF, 0))
def _(g: SmallGuest) -> GuestOutcome:
    g.put(0, _DATA.to_bytes(8, "little"))
    g.mmuext((MmuExt.SET_LDT, g.va(0), 1))
    return g.execute("mov eax, 7\n mov fs, eax")


@case("a selector of an LDT page with a TSS in it", "pv_map_ldt_shadow_page", Trap(PF, 0))
def _(g: SmallGuest) -> GuestOutcome:
    g.put(0, _DATA.to_bytes(8, "little") + _system(9).to_bytes(8, "little"))
    g.protect(0)
    g.mmuext((MmuExt.SET_LDT, g.va(0), 2))
    return g.execute("mov eax, 7\n mov fs, eax")


@case("a selector beyond the LDT", "the processor's limit", Trap(GP, 0xC))
def _(g: SmallGuest) -> GuestOutcome:
    g.put(0, _DATA.to_bytes(8, "little"))
    g.protect(0)
    g.mmuext((MmuExt.SET_LDT, g.va(0), 1))
    return g.execute("mov eax, 0xf\n mov fs, eax")


case("Xen's code segment by a far jump", "DPL 0", Trap(GP, 0xE008))(lambda g: _far_jump(g, 0xE008))
case("Xen's stack segment", "DPL 0", Trap(GP, 0xE010))(lambda g: g.execute("mov eax, 0xe010\n mov ss, eax"))
case("Xen's data segment", "DPL 0", Trap(GP, 0xE010))(lambda g: g.execute("mov eax, 0xe010\n mov ds, eax"))
case("a task register of the guest's own", "privileged", Trap(GP))(lambda g: g.execute("mov eax, 0x28\n ltr ax"))

"""The guest's LDT: its pages become part of the CPU's LDT one by one, when a selector of theirs is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu.faults import GuestFault, PageFault
from pvops_core.machine.cpu.segmentation.descriptors import read_descriptor, selector_fault
from pvops_core.x86 import GP, NP, PF, SS
from pvops_xen.hypervisor.abi import EINVAL, PAGE_MASK, PAGE_SHIFT
from pvops_xen.hypervisor.access import canonical, native_addr_ok
from pvops_xen.hypervisor.memory import entries as pte
from pvops_xen.hypervisor.memory.frames import FrameType
from pvops_xen.hypervisor.memory.walk import guest_l1e
from pvops_xen.hypervisor.processor.segments import LDT_PAGE, WINDOW_SIZE, map_slot, window

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.machine.cpu.segmentation.segments import Descriptor
    from pvops_xen.hypervisor.core import Hypervisor


_READABLE: Final = 1 << 9  # of a code descriptor's second word
_PRESENT_LDT: Final = 0x8200  # type and present bits of an LDT descriptor's second word


def set_ldt(hv: Hypervisor, cpu: Vcpu, base: int, count: int) -> int:
    """MMUEXT_SET_LDT: base must be page aligned, at most 8192 entries; nothing is mapped yet."""
    count &= 0xFFFF_FFFF
    base = base if count else 0
    # A selector has 13 bits of index
    if base & PAGE_MASK or count > 8192 or (count and not native_addr_ok(hv.abi, base)):
        hv.log(f"Bad args to SET_LDT: ptr={base:x}, ents={count:x}")
        return -EINVAL
    state = hv.state(cpu)
    # The same again changes nothing, and keeps pages that were mapped (``do_mmuext_op``, MMUEXT_SET_LDT).
    if (state.ldt_base, state.ldt_ents) != (base, count):
        unmap_ldt(hv, cpu)
        state.ldt_base, state.ldt_ents = base, count
        load_ldt_register(hv, cpu)
    return 0


def load_ldt_register(hv: Hypervisor, cpu: Vcpu) -> None:
    """load_LDT(): point the CPU at its window, whose pages fault until they are first used."""
    count = hv.state(cpu).ldt_ents
    base = window(hv, cpu.index) + (LDT_PAGE << PAGE_SHIFT)
    # The limit is the last byte (SDM volume 3, 3.5.1).
    cpu.set_table("ldtr", base if count else 0, max(8 * count - 1, 0), flags=_PRESENT_LDT if count else 0)


def load_segments(hv: Hypervisor, cpu: Vcpu, level: int, cs: int, ss: int) -> None:
    """Go to a privilege level with CS and SS, checked as an interrupt return checks them.

    Raises:
        GuestFault: the processor would fault on one of the two; nothing has changed.
    """
    code = descriptor_of(hv, cpu, cs)
    if not code.code or cs & 3 != level or (code.dpl > level if code.conforming else code.dpl != level):
        # As the processor would at ``iret``: CPL must be the selector's RPL, and DPL the same for a plain segment.
        raise selector_fault(GP, cs, "cannot be returned to")
    if not code.present:
        raise selector_fault(NP, cs, "not present")
    # A null SS is good for 64-bit code below level 3 (Intel SDM volume 3, 5.4.1.1)
    if ss & 0xFFFC or level == 3 or not code.long:
        stack = descriptor_of(hv, cpu, ss)
        if ss & 3 != level or stack.dpl != level or not stack.writable_data:
            raise selector_fault(GP, ss, f"no stack for level {level}")
        if not stack.present:
            raise selector_fault(SS, ss, "not present")
    cpu.set_segments(level, cs, ss)


def data_descriptor(hv: Hypervisor, cpu: Vcpu, selector: int) -> Descriptor | None:
    """What a selector names, if Xen can load it into a data segment register."""
    try:
        descriptor = descriptor_of(hv, cpu, selector)
    except GuestFault:
        return None
    # Data, or code that may be read, and not from more privilege than the selector asks for (Intel SDM volume 3, 5.5).
    readable = not descriptor.system and (not descriptor.code or descriptor.high & _READABLE)
    reached = descriptor.conforming or descriptor.dpl >= selector & 3
    return descriptor if readable and reached and descriptor.present else None


def descriptor_of(hv: Hypervisor, cpu: Vcpu, selector: int) -> Descriptor:
    """A descriptor of the CPU's tables; a page of the LDT that is used for the first time is mapped on the way."""
    try:
        return read_descriptor(cpu, selector)
    except GuestFault as fault:
        # Only a page that is missing is for the window; anything else is the guest's fault.
        if fault.vector != PF:
            raise
        window_fault(hv, cpu, fault.address or 0)
        return read_descriptor(cpu, selector)


def window_fault(hv: Hypervisor, cpu: Vcpu, address: int, error_code: int = 0) -> bool:
    """``handle_gdt_ldt_mapping_fault``: whether it was in the CPU's window; then a page of the LDT is there now.

    Raises:
        GuestFault: what the guest gets: the selector is beyond its GDT, or its LDT has no such page.
    """
    offset = address - window(hv, cpu.index)
    if not 0 <= offset < WINDOW_SIZE:
        return False
    if offset < LDT_PAGE << PAGE_SHIFT:
        # Beyond its own table the guest gets a fault of the selector, not of the page
        # (``handle_gdt_ldt_mapping_fault``).
        raise selector_fault(GP, offset & ~7, "beyond the GDT")
    offset -= LDT_PAGE << PAGE_SHIFT
    if not map_ldt_page(hv, cpu, offset):
        address = hv.state(cpu).ldt_base + offset
        if not canonical(hv.abi, address):
            raise selector_fault(GP, offset & ~3 | 4, "behind the end of all addresses")
        raise PageFault("no page of the LDT", error_code=error_code, address=address)
    return True


def unmap_ldt(hv: Hypervisor, cpu: Vcpu) -> None:
    """``pv_destroy_ldt``: the CPU's LDT has no pages any more."""
    state = hv.state(cpu)
    if not state.ldt_mapped:
        return
    for page, mfn in state.ldt_mapped.items():
        # The window's page is emptied before the reference goes: the CPU must not use a frame that is another's.
        map_slot(hv, cpu.index, LDT_PAGE + page, 0)
        hv.validator.put_page_and_type(mfn)
    state.ldt_mapped.clear()
    cpu.flush_tlb()


def map_ldt_page(hv: Hypervisor, cpu: Vcpu, offset: int) -> bool:
    """``pv_map_ldt_shadow_page``: the CPU touched this byte offset of the LDT; True if the page is there now."""
    state = hv.state(cpu)
    # Beyond the table there is nothing to map, and the processor's limit says so too.
    if offset >= state.ldt_ents * 8:
        return False
    address = guest_l1e(hv, cpu.index, state.ldt_base + offset)
    entry = hv.memory.u64(address) if address is not None else 0
    if not entry & pte.P:
        return False
    mfn = pte.frame_of(entry)
    # A page that is mapped writable, or is a page table, cannot be descriptors.
    if hv.validator.get_page_and_type(mfn, FrameType.SEG_DESC):
        return False
    page = offset >> PAGE_SHIFT
    if page in state.ldt_mapped:  # the guest has changed its mapping of the page since
        hv.validator.put_page_and_type(state.ldt_mapped[page])
    state.ldt_mapped[page] = mfn
    map_slot(hv, cpu.index, LDT_PAGE + page, mfn)
    # The CPU may remember the empty page.
    cpu.flush_tlb()
    return True


def drop_frame(hv: Hypervisor, mfn: int) -> None:
    """A mapping of a descriptor page went away: no vCPU may go on using it as part of its LDT."""
    for cpu in hv.machine.vcpus:
        # A frame may be in several LDTs: all of them lose it.
        if mfn in hv.state(cpu).ldt_mapped.values():
            unmap_ldt(hv, cpu)

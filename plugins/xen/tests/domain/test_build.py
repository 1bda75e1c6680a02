"""A domain that is built and runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pvops_xen.domain.notes import ElfNote
from pvops_xen.hypervisor.abi import VGCF_IN_KERNEL
from pvops_xen.hypervisor.layout import GUEST_CONTEXT, START_INFO
from pvops_xen.xenstore.wire import RequestError

from plugins.xen.tests.domain_rig import BASE, MAGIC, PAGE, TEXT, Notes, boot, elf, start_info
from pvops_core.errors import MachineError

if TYPE_CHECKING:
    from pvops_core.session import Session


@pytest.mark.parametrize("by_page", [False, True])
@pytest.mark.parametrize("bits", [64, 32])
def test_a_guest_prints_and_powers_off(boots: list[Session], bits: int, *, by_page: bool) -> None:
    changes: Notes = {ElfNote.HYPERCALL_PAGE: PAGE[bits].to_bytes(bits // 8, "little")} if by_page else {}
    session = boot(boots, elf(bits, changes, by_page=by_page))
    assert session.run(max_ns=10**9).reason == "poweroff"
    assert bytes(session.platform.console) == MAGIC[bits]


@pytest.mark.parametrize("bits", [64, 32])
def test_a_guest_may_have_no_console_ring(boots: list[Session], bits: int) -> None:
    with_ring, without = boot(boots, elf(bits)), boot(boots, elf(bits), console_ring="no")
    assert start_info(with_ring, bits)["console.domU.mfn"]
    assert start_info(without, bits)["console.domU.mfn"] == 0
    hv = without.platform.hv  # type: ignore[attr-defined]
    cpu = without.machine.vcpus[0]
    assert cpu.u32(start_info(without, bits)["address"] + START_INFO.offset("console.domU.evtchn", bits)) == 0
    tree = hv.store.daemon.as_toolstack()
    assert tree.node("/local/domain/1/store/port", 0).value == b"1"
    with pytest.raises(RequestError):
        tree.node("/local/domain/1/console/ring-ref", 0)
    without.platform.typed(b"hello")
    assert hv.console.typed == b"hello", "console_io reads it"
    assert without.run(max_ns=10**9).reason == "poweroff"
    assert bytes(without.platform.console) == MAGIC[bits], "console_io prints"


def test_a_domain_without_channels_for_its_services_is_not_built(boots: list[Session]) -> None:
    with pytest.raises(MachineError, match="1 event channels, and none is left for its console"):
        boot(boots, elf(64), event_channels="1")
    boot(boots, elf(64), event_channels="1", console_ring="no")


def test_a_kernel_may_load_the_stack_segment_of_its_own_level(boots: list[Session]) -> None:
    session = boot(boots, elf(64, before="b82be00000 8ed0"))  # mov eax, 0xe02b; mov ss, eax
    cpu = session.machine.vcpus[0]
    assert cpu.mode_switch.save()[:3] == (1, 0xE033, 0xE02B)
    assert session.run(max_ns=10**9).reason == "poweroff"
    assert cpu.mode_switch.save()[:3] == (3, 0xE033, 0xE02B)


@pytest.mark.parametrize("iopl", [0, 1])
def test_a_new_vcpu_has_the_io_privilege_of_its_flags(boots: list[Session], iopl: int) -> None:
    session = boot(boots, elf(64), vcpus=2)
    cpu, hv = session.machine.vcpus[0], session.platform.hv  # type: ignore[attr-defined]
    context = GUEST_CONTEXT.over(bytearray(GUEST_CONTEXT.size(64)), 64)
    context["flags"], context["ctrlreg[3]"] = VGCF_IN_KERNEL, cpu.cr3
    for name, value in {"cs": 0xE033, "ss": 0xE02B, "rflags": iopl << 12, "rip": TEXT[64]}.items():
        context[f"user_regs.{name}"] = value
    cpu.write_virtual(BASE[64] + 0x200000, context.raw)
    assert session.platform.hypercall(cpu, 24, 0, 1, BASE[64] + 0x200000) == 0  # type: ignore[attr-defined]
    assert hv.domain.vcpus[1].iopl == iopl

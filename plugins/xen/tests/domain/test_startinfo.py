"""start_info: everything is where it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pvops_xen.hypervisor.layout import START_INFO

from plugins.xen.tests.domain_rig import MEMORY, boot, elf, start_info
from pvops_core.errors import MachineError

if TYPE_CHECKING:
    from pvops_core.session import Session


@pytest.mark.parametrize("bits", [64, 32])
def test_everything_is_where_start_info_says(boots: list[Session], bits: int) -> None:
    initrd = bytes(range(256)) * 40
    session = boot(boots, elf(bits), initrd=initrd, cmdline="one two", vcpus=2)
    cpu, info = session.machine.vcpus[0], start_info(session, bits)
    assert info["nr_pages"] == MEMORY >> 12
    assert cpu.read_virtual(info["mod_start"], info["mod_len"]) == initrd
    assert cpu.read_virtual(info["address"] + START_INFO.offset("cmd_line", bits), 8) == b"one two\0"
    first = cpu.word(info["mfn_list"])
    assert session.platform.machine_address(0) == first << 12
    assert cpu.walk(info["pt_base"]).pa == cpu.cr3
    with pytest.raises(MachineError):
        cpu.walk(info["pt_base"], write=True)
    assert cpu.rsp == info["pt_base"] + (info["nr_pt_frames"] + 1 << 12)
    assert session.machine.vcpus[1].halted

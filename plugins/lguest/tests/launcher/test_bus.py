"""The devices of 2.6.23."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pvops_lguest.host.abi import Call

from plugins.lguest.tests.launcher_rig import standing
from plugins.lguest.tests.small import RAM, disk_file

if TYPE_CHECKING:
    from pathlib import Path


def test_the_console_and_the_disk_of_2_6_23(tmp_path: Path) -> None:
    with standing("2.6.23", disk=str(disk_file(tmp_path, 4))) as session:
        platform, memory, vcpu = session.platform, session.machine.memory, session.machine.vcpus[0]
        assert memory.read(RAM, 12) == struct.pack("<HHHHI", 1, 0, 0, 0, 0)
        page = RAM + 0x1000
        assert memory.read(RAM + 12, 12) == struct.pack("<HHHHI", 3, 0x8000, 0, 1, page >> 12)
        assert memory.u32(page + 16) == 4

        def dma(at: int, *sections: tuple[int, int]) -> int:
            addresses = [address for address, _ in sections] + [0] * (16 - len(sections))
            lengths = [length for _, length in sections] + [0] * (16 - len(sections))
            memory.write(at, struct.pack("<I16I16H", 0, *addresses, *lengths))
            return at

        bind, send = platform.number(Call.BIND_DMA), platform.number(Call.SEND_DMA)
        assert platform.hypercall(vcpu, bind, 0, dma(0x5000, (0x6000, 3)), 1 << 8 | 1) == 1
        platform.typed(b"hello")
        assert (memory.read(0x6000, 3), memory.u32(0x5000)) == (b"hel", 3)
        memory.set_u32(0x5000, 0)
        platform.before_entry(vcpu)
        assert (memory.read(0x6000, 3), memory.u32(0x5000)) == (b"lol", 2)

        assert platform.hypercall(vcpu, bind, page, dma(0x7000, (0x8000, 512)), 1 << 8 | 2) == 1
        memory.write(page, struct.pack("<iIIi", 0, 2, 512, 0))
        platform.hypercall(vcpu, send, page, dma(0x9000))
        assert memory.read(0x8000, 10) == b"sector 2.."
        assert (memory.u32(page + 12), memory.u32(0x7000)) == (1, 512)
        memory.write(page, struct.pack("<iIIi", 1, 2, 512, 0))
        platform.hypercall(vcpu, send, page, dma(0x9000))
        assert memory.u32(page + 12) == 2
        memory.set_u32(0x7000, 0)
        memory.write(page, struct.pack("<iIIi", 0, 4, 512, 0))
        platform.hypercall(vcpu, send, page, dma(0x9000))
        assert memory.u32(page + 12) == 2

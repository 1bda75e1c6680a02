"""Images that are no Linux and say where they are to be entered."""

from __future__ import annotations

import struct

import pytest
from linux_rig import MEMORY, SPIN
from pvops_native.linux import pvh
from pvops_native.platform import NativePlatform

from pvops_core.errors import ImageError
from pvops_core.guests import Kernel
from pvops_core.images import load_image
from pvops_core.kinds import MachineKind
from pvops_core.machine import Machine
from pvops_core.testing.images import ElfBuilder


@pytest.mark.parametrize("bits", [64, 32])
def test_an_image_that_is_no_linux_is_entered_where_its_note_says(bits: int) -> None:
    builder = ElfBuilder(bits, 0x1000000)
    builder.text(".text", SPIN + bytes.fromhex("8b03 ebfe"))  # mov eax, [ebx]; jmp .
    builder.notes(("Xen", 18, (0x1000002).to_bytes(4, "little")))
    kernel = Kernel(load_image(builder.build()), b"RAMDISK", "some words")
    with Machine(MachineKind.X86_64 if bits == 64 else MachineKind.PAE, memory=MEMORY) as machine:
        built = NativePlatform(machine, kernel)
        machine.attach(built)
        built.build()
        vcpu, memory = machine.vcpus[0], machine.memory
        assert (vcpu.rip, vcpu.cr0, vcpu.long_mode, vcpu.interrupts_enabled) == (0x1000002, 0x11, False, False)
        assert vcpu.segment("cs")[1:3] == (0, 0xFFFFFFFF)
        info = vcpu.get("ebx")
        magic, version, _, modules = struct.unpack("<IIII", memory.read(info, 16))
        assert (magic, version, modules) == (0x336EC578, 1, 1)
        module, cmdline, rsdp, ranges, count = struct.unpack("<QQQQI", memory.read(info + 16, 36))
        assert memory.read(*struct.unpack("<QQ", memory.read(module, 16))) == b"RAMDISK"
        assert memory.read(cmdline, 11) == b"some words\0"
        assert memory.read(rsdp, 8) == b"RSD PTR "
        found = [struct.unpack("<QQII", memory.read(ranges + 24 * index, 24)) for index in range(count)]
        assert [kind for _, _, kind, _ in found] == [1, 2, 1]
        assert found[-1][0] + found[-1][1] == MEMORY
        machine.run(max_ns=1000)
        assert vcpu.get("eax") == magic


def test_a_note_without_an_address_is_named() -> None:
    builder = ElfBuilder(64, 0x1000000)
    builder.text(".text", SPIN)
    builder.notes(("Xen", 18, b"\1\0"))
    image = load_image(builder.build())
    with pytest.raises(ImageError, match="PHYS32_ENTRY"):
        pvh.entry_of(image)

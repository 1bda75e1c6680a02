"""A real kernel in memory and its vCPU at the entry, by generation; images that no launcher takes."""

from __future__ import annotations

import struct

import pytest
from pvops_lguest import backend
from pvops_lguest.host.abi import VMCALL, Call
from pvops_lguest.launcher.parameters import CMDLINE
from pvops_native import backend as native

from plugins.lguest.tests.launcher_rig import EVERY
from plugins.lguest.tests.small import BASE, CODE, RAM, SmallGuest
from pvops_core.errors import ImageError, MachineError, UsageError
from pvops_core.guests import Kernel
from pvops_core.images import load_image
from pvops_core.kinds import MachineKind
from pvops_core.session import Session
from pvops_core.testing.images import ElfBuilder, make_bzimage


@EVERY
def test_a_kernel_of_every_generation_starts_and_powers_off(name: str) -> None:
    with SmallGuest(name).end().session(initrd=b"ramdisk", cmdline="console=hvc0 quiet") as session:
        assert session.platform.state.abi.name == name
        assert session.machine.kind is MachineKind.I386
        stop = session.run(max_ns=10_000_000)
        assert (stop.reason, stop.detail) == ("poweroff", "CRASH: Power down")
        memory = session.machine.memory
        assert memory.read(CMDLINE, 18) == b"console=hvc0 quiet"
        initrd, size = struct.unpack("<II", memory.read(0x218, 8))
        assert memory.read(initrd, size) == b"ramdisk"
        assert initrd % 4096 == 0
        assert struct.unpack("<QQI", memory.read(0x2D0, 20)) == (0, RAM, 1)
        assert (memory.u8(0x1E8), memory.u32(0x228), memory.u32(0x23C)) == (1, CMDLINE, 1)


@pytest.mark.parametrize("name", ["2.6.31", "2.6.35"])
def test_a_kernel_with_pae_starts_on_a_machine_with_three_levels(name: str) -> None:
    guest = SmallGuest(name, pae=True)
    guest.call(Call.SET_PTE, RAM - 0x1000, BASE, 0x100067, 0).call(Call.SET_PGD, 0, 1)
    guest.code.load(eax=13).raw(VMCALL.hex() if guest.abi.vmcall else "cd1f")
    with guest.end().session() as session:
        assert session.machine.kind is MachineKind.PAE
        directory = session.platform.state.shadow.gpgdir
        pointers = struct.unpack("<4Q", session.machine.memory.read(directory, 32))
        assert pointers == (pointers[0], 0, 0, pointers[0])
        assert pointers[0] & 0xFFF == 1
        stop = session.run(max_ns=10_000_000)
        assert (stop.reason, stop.detail) == ("poweroff", "CRASH: Power down")
        calls = {"LGUEST_INIT": 1, "SET_PTE": 1, "SET_PGD": 1, "SET_PMD": 1, "SHUTDOWN": 1}
        assert session.platform.hypercalls == calls
        data = session.platform.state.data
        assert session.machine.memory.u32(data.pa + session.platform.state.abi.data.reserve_mem) == 2 << 20


def test_bzimages_are_unpacked_as_on_any_platform() -> None:
    guest = SmallGuest("2.6.24").end()
    kernel = Kernel(load_image(make_bzimage(guest.image(), protocol=0x207), "bz"))
    with Session(kernel, (backend, native), memory=RAM) as session:
        assert session.run(max_ns=10_000_000).reason == "poweroff"


def test_a_kernel_without_lguests_code_is_refused() -> None:
    builder = ElfBuilder(32, base=BASE + CODE)
    builder.text(".text", b"\xcc" * 64)
    with pytest.raises(ImageError, match="built without LGUEST_GUEST"):
        Session(Kernel(load_image(builder.build(), "none")), (backend, native), memory=RAM)


def test_a_64_bit_kernel_is_refused() -> None:
    builder = ElfBuilder(64)
    builder.text(".text", b"\xcc" * 64)
    with pytest.raises(UsageError, match="no x86_64 machine; it can be i386"):
        Session(Kernel(load_image(builder.build(), "wide")), (backend, native), memory=RAM)


def test_what_does_not_fit_is_told() -> None:
    guest = SmallGuest("2.6.24")
    with pytest.raises(MachineError, match="do not fit"):
        guest.session(initrd=bytes(RAM - 0x110000))
    with pytest.raises(MachineError, match="does not fit beside"):
        guest.session(initrd=bytes(RAM))
    with pytest.raises(MachineError, match="longer than the 2047"):
        guest.session(cmdline="x" * 2048)
    with pytest.raises(MachineError, match="are not enough"):
        Session(Kernel(load_image(guest.image(), "small")), (backend, native), memory=1 << 20)


def test_segments_that_no_launcher_takes() -> None:
    cases = ((0xC0000000,), "where the launcher puts"), ((0xC0100000, 0x80200000), "above its phys")
    for addresses, message in cases:
        builder = ElfBuilder(32)
        for number, address in enumerate(addresses):
            builder.text(f".text{number}", b"\xcc" * 64, address=address)
        with pytest.raises(ImageError, match=message):
            of_generation(builder, "2.6.24")
    builder = ElfBuilder(32, base=BASE + CODE)
    builder.text(".text", b"\xcc" * 64)
    with pytest.raises(ImageError, match="no GenuineLguest"):
        of_generation(builder, "2.6.23")


def of_generation(builder: ElfBuilder, abi: str) -> Session:
    kernel = Kernel(load_image(builder.build(), "odd"))
    return Session(kernel, (backend, native), options={"abi": abi}, memory=RAM)

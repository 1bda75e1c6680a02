"""The launcher: small kernels of every generation are loaded, started, and talk to their devices."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from pvops_lguest import backend
from pvops_lguest.host.abi import ABIS, VMCALL, Call, Descriptors
from pvops_lguest.host.generation import choose_abi
from pvops_lguest.launcher.disk import Disk
from pvops_lguest.launcher.parameters import CMDLINE
from pvops_native import backend as native

from pvops_core.errors import ImageError, MachineError, UsageError
from pvops_core.guests import Kernel
from pvops_core.images import load_image
from pvops_core.kinds import MachineKind
from pvops_core.session import Session
from pvops_core.testing.images import ElfBuilder, make_bzimage

from .small import BASE, CODE, DATA, RAM, SmallGuest, disk_file

EVERY = pytest.mark.parametrize("name", ABIS)
VIRTIO = pytest.mark.parametrize("name", [name for name, abi in ABIS.items() if abi.descriptors is not Descriptors.BUS])


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


@pytest.mark.parametrize("name", ["2.6.23", "2.6.24", "2.6.30"])
def test_hosts_before_pae_refuse_its_kernels(name: str) -> None:
    with pytest.raises(UsageError, match=r"has no guests with PAE; the first are those of 2\.6\.31"):
        SmallGuest(name, pae=True).session()


@EVERY
def test_another_message_is_a_crash(name: str) -> None:
    with SmallGuest(name).end("no init found").session() as session:
        stop = session.run(max_ns=10_000_000)
        assert (stop.reason, stop.detail) == ("crash", "CRASH: no init found")


def test_a_restart_is_a_reboot() -> None:
    guest = SmallGuest("2.6.31")
    guest.texts[DATA + 0x1000] = b"again\0"
    with guest.call(Call.SHUTDOWN, DATA + 0x1000, 2).session() as session:
        assert session.run(max_ns=10_000_000).reason == "reboot"


@EVERY
def test_what_the_image_shows_is_enough_without_symbols_of_data(name: str) -> None:
    guest = SmallGuest(name)
    del guest.symbols["lguest_data"]
    kernel = Kernel(load_image(guest.image(), name))
    if name == "2.6.23":
        with pytest.raises(ImageError, match="built without LGUEST_GUEST"):
            choose_abi(kernel, "")
    else:
        assert choose_abi(kernel, "").name == name
    assert choose_abi(kernel, "2.6.35").name == "2.6.35"


def test_a_shared_page_of_another_shape_is_told_from_none() -> None:
    image = SmallGuest("2.6.35").image()
    members = struct.pack("<II", BASE, 0x80)
    assert image.count(members) == 1
    kernel = Kernel(load_image(image.replace(members, bytes(4) + members[:4]), "4.9"))
    with pytest.raises(ImageError, match="has the shape of no generation that is known"):
        choose_abi(kernel, "")


def test_bzimages_are_unpacked_as_on_any_platform() -> None:
    guest = SmallGuest("2.6.24").end()
    kernel = Kernel(load_image(make_bzimage(guest.image(), protocol=0x207), "bz"))
    with Session(kernel, (backend, native), memory=RAM) as session:
        assert session.run(max_ns=10_000_000).reason == "poweroff"


@VIRTIO
def test_early_text_and_what_waits_for_text(name: str) -> None:
    guest = SmallGuest(name)
    guest.texts[DATA + 0x1800] = b"Linux version 2.6\n\0"
    with guest.call(Call.NOTIFY, DATA + 0x1800).end().session() as session:
        session.platform.until = b"version"
        assert session.run(max_ns=10_000_000).reason == "until"
        session.platform.until = b""
        assert session.run(max_ns=10_000_000).reason == "poweroff"
        assert bytes(session.platform.console) == b"Linux version 2.6\n"


def test_notify_of_nothing_kills_with_the_launchers_words() -> None:
    with SmallGuest("2.6.25").call(Call.NOTIFY, RAM + (200 << 12)).session() as session:
        assert session.run(max_ns=10_000_000).detail == f"Bad NOTIFY {RAM + (200 << 12):#x}"


def test_descriptors_in_fields() -> None:
    with SmallGuest("2.6.24").session() as session:
        page = session.machine.memory.read(RAM, 64)
        first, second = (RAM >> 12) + 1, (RAM >> 12) + 3
        queues = struct.pack("<BBHHI", 2, 8, 128, 1, first) + struct.pack("<BBHHI", 2, 8, 128, 2, second)
        assert page == (bytes([3, 20, 0]) + queues).ljust(64, b"\0")


def test_descriptors_that_are_counted(tmp_path: Path) -> None:
    with SmallGuest("2.6.25").session(options={"disk": str(disk_file(tmp_path, 3))}) as session:
        page = session.machine.memory.read(RAM, 64)
        assert page[:5] == bytes([3, 2, 0, 0, 0])
        assert page[21:26] == bytes([2, 1, 1, 16, 0])
        assert page[34] == 1 << 2 | 1 << 5
        assert struct.unpack("<QII", page[36:52]) == (3, 0, 126)


class Driver:
    """What a driver does with a ring, in the memory of a stopped guest."""

    def __init__(self, session: Session, number: int) -> None:
        self.session = session
        self.memory = session.machine.memory
        self.at = RAM + 0x1000 + 0x2000 * number

    def offer(self, *buffers: tuple[int, int, int]) -> None:
        """Put up one chain of buffers: address, length and 2 for those that the device writes."""
        for number, (address, length, flags) in enumerate(buffers):
            last = number == len(buffers) - 1
            descriptor = struct.pack("<QIHH", address, length, flags | (not last), 0 if last else number + 1)
            self.memory.write(self.at + 16 * number, descriptor)
        index = int.from_bytes(self.memory.read(self.at + 16 * 128 + 2, 2), "little")
        self.memory.write(self.at + 16 * 128 + 2, (index + 1).to_bytes(2, "little"))

    def kick(self) -> None:
        platform = self.session.platform
        platform.hypercall(self.session.machine.vcpus[0], platform.number(Call.NOTIFY), self.at)

    @property
    def used(self) -> int:
        return int.from_bytes(self.memory.read(self.at + 0x1000 + 2, 2), "little")


def standing(name: str, **options: str) -> Session:
    """A session whose guest has made its first call and now hangs."""
    guest = SmallGuest(name)
    guest.code.hang()
    session = guest.session(options=options)
    session.run(max_ns=100_000)
    return session


@VIRTIO
def test_the_console_prints_what_is_in_its_output_ring(name: str) -> None:
    with standing(name) as session:
        out = Driver(session, 1)
        if session.platform.state.abi.descriptors is Descriptors.COUNTED:
            out.offer((0x5000, 4, 0))
            out.kick()
            assert out.used == 0  # a driver acknowledges the device first
            session.machine.memory.set_u8(RAM + 4, 7)
        else:
            out.offer((0x5000, 4, 0))
        session.machine.memory.write(0x5000, b"text")
        out.kick()
        assert (out.used, bytes(session.platform.console)) == (1, b"text")
        assert session.platform.state.interrupts.save().pending == 1 << 2


@VIRTIO
def test_what_is_typed_waits_for_room(name: str) -> None:
    with standing(name) as session:
        if session.platform.state.abi.descriptors is Descriptors.COUNTED:
            session.machine.memory.set_u8(RAM + 4, 7)
        session.platform.typed(b"yes\n")
        into = Driver(session, 0)
        into.offer((0x5000, 3, 2))
        into.kick()
        assert (session.machine.memory.read(0x5000, 3), into.used) == (b"yes", 1)
        state = session.platform.save()
        into.offer((0x5000, 3, 2))
        into.kick()
        assert session.machine.memory.read(0x5000, 2) == b"\ns"[:1] + b"e"
        session.platform.load(state)
        into.kick()
        assert into.used == 3  # the newline again, for the ring went back too
        assert session.platform.state.interrupts.save().pending == 1 << 1


def test_a_status_of_zero_resets_a_device() -> None:
    with standing("2.6.31") as session:
        session.machine.memory.set_u8(RAM + 4, 7)
        out = Driver(session, 1)
        out.offer((0x5000, 4, 0))
        out.kick()
        session.machine.memory.set_u8(RAM + 4, 0)
        session.platform.hypercall(session.machine.vcpus[0], 17, RAM)
        assert out.used == 0
        assert session.machine.memory.read(out.at, 16) == bytes(16)


@pytest.mark.parametrize(("number", "flags"), [(0, 0), (1, 2)])
def test_buffers_of_the_wrong_sort_kill(number: int, flags: int) -> None:
    with standing("2.6.24") as session:
        ring = Driver(session, number)
        ring.offer((0x5000, 4, flags))
        session.platform.typed(b"x")
        ring.kick()
        stop = session.run(max_ns=1_000_000)
        assert stop.reason == "crash"
        assert "queue?" in stop.detail


@VIRTIO
def test_the_disk_is_read_and_not_written(name: str, tmp_path: Path) -> None:
    with standing(name, disk=str(disk_file(tmp_path, 4))) as session:
        if session.platform.state.abi.descriptors is Descriptors.COUNTED:
            session.machine.memory.set_u8(RAM + 21 + 4, 7)
        ring, memory = Driver(session, 2), session.machine.memory

        def ask(kind: int, sector: int, length: int = 1024) -> tuple[int, bytes]:
            memory.write(0x5000, struct.pack("<IIQ", kind, 0, sector))
            memory.write(0x6000, b"?" * 1024)
            memory.write(0x7000, b"?")
            ring.offer((0x5000, 16, 0), (0x6000, length, 2), (0x7000, 1, 2))
            ring.kick()
            return memory.read(0x7000, 1)[0], memory.read(0x6000, 16)

        assert ask(0, 1) == (0, b"sector 1........")
        assert ask(0x80000000, 2) == (0, b"sector 2........")
        assert ask(0, 3)[0] == 1  # half of it is behind the end
        assert ask(1, 0)[0] == 1
        assert ask(2, 0)[0] == 2
        assert session.platform.state.interrupts.save().pending == 1 << 3


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


def test_a_disk_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"disk=.*none.* cannot be read: No such file"):
        SmallGuest("2.6.24").session(options={"disk": str(tmp_path / "none")})
    assert Disk(b"x" * 513).sectors == 2
    assert Disk(b"x").read(0, 2) == b"x\0"


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

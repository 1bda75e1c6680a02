"""The domain builder: small guests in ELF files, what they find at their entry, and images that are refused."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pvops_xen import backend
from pvops_xen.domain.notes import ElfNote, read_notes
from pvops_xen.domain.space import SLACK, MemoryRequest, plan
from pvops_xen.domain.stubs import hypercall_page
from pvops_xen.hypervisor.abi import VGCF_IN_KERNEL
from pvops_xen.hypervisor.layout import GUEST_CONTEXT, START_INFO
from pvops_xen.xenstore.wire import RequestError

from pvops_core.errors import ImageError, MachineError, UsageError
from pvops_core.guests import Kernel
from pvops_core.images import load_image
from pvops_core.session import Session
from pvops_core.testing.images import ElfBuilder

BASE = {64: 0xFFFF_FFFF_8000_0000, 32: 0xC000_0000}
TEXT = {bits: base + 0x100000 for bits, base in BASE.items()}
PAGE = {bits: text + 0x1000 for bits, text in TEXT.items()}
MAGIC = {64: b"xen-3.0-x86_64", 32: b"xen-3.0-x86_32p"}
MEMORY = 16 << 20
Notes = Mapping[ElfNote, bytes | None]


def code_of(bits: int, *, by_page: bool = False) -> bytes:
    """Prints start_info's magic by console_io, then powers off; by the instruction or by the hypercall page."""

    def call(number: int, so_far: int) -> bytes:
        if not by_page:
            return bytes.fromhex("0f05" if bits == 64 else "cd82").ljust(5, b"\x90")
        return b"\xe8" + struct.pack("<i", PAGE[bits] + 32 * number - (TEXT[bits] + so_far + 5))

    if bits == 64:
        code = bytes.fromhex("4889f2 b812000000 31ff") + b"\xbe" + struct.pack("<I", len(MAGIC[64]))
        code += call(18, len(code)) + bytes.fromhex("b81d000000 bf02000000 488d3505000000")
    else:
        code = bytes.fromhex("89f2 b812000000 31db") + b"\xb9" + struct.pack("<I", len(MAGIC[32]))
        code += call(18, len(code)) + bytes.fromhex("b81d000000 bb02000000")
        code += b"\xb9" + struct.pack("<I", TEXT[32] + len(code) + 10)
    return code + call(29, len(code)) + bytes(4)


def elf(bits: int, changes: Notes | None = None, *, by_page: bool = False, before: str = "") -> bytes:
    builder = ElfBuilder(bits, TEXT[bits])
    builder.text(".text", bytes.fromhex(before) + code_of(bits, by_page=by_page))
    builder.section(".page", bytes(0x1000), address=PAGE[bits])
    word = bits // 8
    notes: dict[ElfNote, bytes | None] = {
        ElfNote.GUEST_OS: b"test\0",
        ElfNote.LOADER: b"generic\0",
        ElfNote.XEN_VERSION: b"xen-3.0\0",
        ElfNote.VIRT_BASE: BASE[bits].to_bytes(word, "little"),
        ElfNote.ENTRY: TEXT[bits].to_bytes(word, "little"),
        ElfNote.PAE_MODE: b"yes\0",
        **(changes or {}),
    }
    builder.notes(*(("Xen", kind, data) for kind, data in notes.items() if data is not None))
    return builder.build()


def _moved(bits: int, base: int) -> dict[ElfNote, bytes]:
    """Notes of an image whose addresses begin elsewhere."""
    word = bits // 8
    return {
        ElfNote.VIRT_BASE: base.to_bytes(word, "little"),
        ElfNote.ENTRY: (base + 0x100000).to_bytes(word, "little"),
    }


@pytest.fixture
def boots() -> Iterator[list[Session]]:
    sessions: list[Session] = []
    yield sessions
    for session in sessions:
        session.close()


def boot(
    boots: list[Session],
    image: bytes,
    *,
    initrd: bytes = b"",
    cmdline: str = "",
    memory: int = MEMORY,
    vcpus: int = 1,
    **options: str,
) -> Session:
    kernel = Kernel(load_image(image), initrd, cmdline)
    session = Session(kernel, (backend,), memory=memory, vcpus=vcpus, options=options)
    boots.append(session)
    return session


WORDS = (
    *("nr_pages", "shared_info", "flags", "console.domU.mfn", "pt_base", "nr_pt_frames", "mfn_list"),
    *("mod_start", "mod_len", "first_p2m_pfn", "nr_p2m_frames"),
)


def start_info(session: Session, bits: int) -> dict[str, int]:
    """The fields of start_info that are unsigned longs, by way of RSI."""
    cpu = session.machine.vcpus[0]
    address = cpu.get("rsi" if bits == 64 else "esi")
    return {name: cpu.word(address + START_INFO.offset(name, bits)) for name in WORDS} | {"address": address}


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


def test_ramdisk_and_p2m_list_out_of_the_mapping(boots: list[Session]) -> None:
    where = 0x80_0000_0000
    notes: Notes = {ElfNote.INIT_P2M: where.to_bytes(8, "little"), ElfNote.MOD_START_PFN: b"\1\0\0\0"}
    session = boot(boots, elf(64, notes), initrd=b"ramdisk")
    cpu, info = session.machine.vcpus[0], start_info(session, 64)
    assert info["flags"] & 8
    assert session.machine.memory.read(session.platform.machine_address(info["mod_start"] << 12), 7) == b"ramdisk"
    assert info["mfn_list"] == where
    assert cpu.u64(where + 8 * 5) << 12 == session.platform.machine_address(5 << 12)
    assert info["nr_p2m_frames"] == (MEMORY >> 21) + 3  # and a table of each level below the root
    assert cpu.walk(where, write=True).pa == session.platform.machine_address(info["first_p2m_pfn"] << 12)


@pytest.mark.parametrize(
    ("bits", "changes", "field"),
    [
        (64, {ElfNote.XEN_VERSION: None}, "note XEN_VERSION"),
        (64, {ElfNote.XEN_VERSION: b"xen-2.0\0"}, "note XEN_VERSION"),
        (64, {ElfNote.LOADER: b"special\0"}, "note LOADER"),
        (64, {ElfNote.FEATURES: b"!time_travel"}, "note FEATURES"),
        (64, {ElfNote.FEATURES: b"highmem_assist|!auto_translated_physmap"}, "note FEATURES"),
        (64, {ElfNote.VIRT_BASE: bytes(3)}, "note VIRT_BASE"),
        (64, {ElfNote.VIRT_BASE: (0xFFFF_8000_0000_0000).to_bytes(8, "little")}, "note ENTRY"),
        (64, _moved(64, 0xFFFF_8000_0000_0000), "note VIRT_BASE"),
        (64, _moved(64, 0x8000_0000_0000), "note VIRT_BASE"),
        (32, _moved(32, 0xF580_0000), "note VIRT_BASE"),
        (64, {ElfNote.INIT_P2M: (0xFFFF_8300_0000_0000).to_bytes(8, "little")}, "note INIT_P2M"),
        (64, {ElfNote.INIT_P2M: (BASE[64] - 0x1000).to_bytes(8, "little")}, "note INIT_P2M"),
        (64, {ElfNote.VIRT_BASE: None, ElfNote.PADDR_OFFSET: bytes(8)}, "note PADDR_OFFSET"),
        (64, {ElfNote.ENTRY: bytes(8)}, "note ENTRY"),
        (64, {ElfNote.HYPERCALL_PAGE: (PAGE[64] + 8).to_bytes(8, "little")}, "note HYPERCALL_PAGE"),
        (64, {ElfNote.PADDR_OFFSET: (1 << 30).to_bytes(8, "little")}, "segment 0"),
        (32, {ElfNote.PAE_MODE: b"no\0"}, "note PAE_MODE"),
        (32, {ElfNote.PAE_MODE: None}, "note PAE_MODE"),
    ],
)
def test_the_error_names_the_note_or_segment(boots: list[Session], bits: int, changes: Notes, field: str) -> None:
    with pytest.raises(ImageError, match=field):
        boot(boots, elf(bits, changes))


def test_an_image_without_notes() -> None:
    builder = ElfBuilder(64, TEXT[64])
    builder.text(".text", b"\x90")
    with pytest.raises(ImageError, match="Xen notes"):
        read_notes(load_image(builder.build()))


def test_too_little_memory(boots: list[Session]) -> None:
    with pytest.raises(MachineError):
        boot(boots, elf(64), memory=1 << 20)
    with pytest.raises(UsageError, match="has room for 1023"):
        boot(boots, elf(64), memory=MEMORY, cmdline="x" * 1024)


def test_a_page_of_stubs_has_one_of_32_bytes_a_number() -> None:
    page = hypercall_page(64)
    assert len(page) == 4096
    assert page[32 * 17 :].startswith(bytes.fromhex("51 4153 b811000000 0f05 415b 59 c3"))
    assert page[32 * 23 :].startswith(bytes.fromhex("51 4153 50 b817000000 0f05 cc"))
    assert hypercall_page(32)[32 * 23 :].startswith(bytes.fromhex("50 b817000000 cd82"))


@given(
    bits=st.sampled_from([32, 64]),
    kernel_end=st.integers(1, 3000),
    initrd=st.integers(0, 600),
    mapped=st.booleans(),
    own_p2m=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_plan_maps_what_it_lays_out(
    *,
    bits: int,
    kernel_end: int,
    initrd: int,
    mapped: bool,
    own_p2m: bool,
    seed: int,
) -> None:
    memory = 8192
    where = 0x80_0000_0000 if own_p2m and bits == 64 else None
    made = plan(MemoryRequest(bits, BASE[bits], kernel_end, initrd, mapped, memory // 512, where, memory))
    p2m = np.random.default_rng(seed).permutation(memory).astype(np.uint64)
    tables = {pfn: struct.unpack("<512Q", page) for pfn, page in made.space.contents(p2m).items()}
    pfn_of = {int(mfn): pfn for pfn, mfn in enumerate(p2m)}
    table_frames = set(tables)
    assert len(table_frames) == len(made.space.tables)
    for area in made.space.areas:
        for index in range(0, area.count, 7):
            va, at = area.va + (index << 12), made.tables
            for level in range(made.space.levels, 0, -1):
                entry = tables[at][va >> (3 + 9 * level) & 511]
                assert entry & 1
                at = pfn_of[(entry & 0x000F_FFFF_FFFF_F000) >> 12]
            assert at == area.pfn + index
            assert bool(entry & 2) == (at not in table_frames)
    kernel = made.space.areas[0]
    assert kernel.end % (4 << 20) == 0
    assert kernel.count > made.stack
    assert kernel.end - (BASE[bits] + (made.stack + 1 << 12)) >= SLACK
    ends = [made.initrd + initrd, made.p2m + memory // 512, made.tables + made.table_count, made.stack + 1]
    assert made.end >= max(*ends, kernel.count)

"""Images of other makes: the older string for notes, symbol tables, any notes at all, many vCPUs."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pvops_xen import backend
from pvops_xen.domain.notes import ElfNote, read_notes
from pvops_xen.domain.symtab import bsd_symtab
from pvops_xen.hypervisor.memory import audit
from pvops_xen.testing.guests import BASE, SmallGuest, address_of, image

from pvops_core.errors import ImageError, MachineError, PvopsError
from pvops_core.guests import Kernel
from pvops_core.images import load_image
from pvops_core.session import Session
from pvops_core.testing.images import ElfBuilder

MEMORY = 8 << 20


@pytest.fixture
def sessions() -> Iterator[list[Session]]:
    made: list[Session] = []
    yield made
    for session in made:
        session.close()


def build(data: bytes, *, memory: int = MEMORY, vcpus: int = 1) -> Session:
    return Session(Kernel(load_image(data)), (backend,), memory=memory, vcpus=vcpus)


def with_string(bits: int, text: str) -> bytes:
    """An image that says everything in the section __xen_guest; its physical addresses are its virtual ones."""
    builder = ElfBuilder(bits, address_of(bits, "kernel"))
    builder.text(".text", b"\xf4" * 16)
    builder.section("__xen_guest", text.encode() + b"\0", flags=0)
    return builder.build()


def legacy(bits: int, **changes: str | None) -> str:
    pairs: dict[str, str | None] = {
        "GUEST_OS": "linux",
        "XEN_VER": "xen-3.0",
        "VIRT_BASE": hex(BASE[bits]),
        "ELF_PADDR_OFFSET": hex(BASE[bits] - (BASE[bits] & 0x3FFFFFFF)),  # the builder's physical addresses
        "VIRT_ENTRY": hex(address_of(bits, "kernel")),
        "HYPERCALL_PAGE": "0x100",
        "PAE": "yes[extended-cr3]",
        "LOADER": "generic",
        **changes,
    }
    return ",".join(f"{name}={value}" for name, value in pairs.items() if value is not None)


@pytest.mark.parametrize("bits", [64, 32])
def test_the_older_string(bits: int) -> None:
    notes = read_notes(load_image(with_string(bits, legacy(bits) + ",BSD_SYMTAB")))
    assert (notes.virt_base, notes.entry) == (BASE[bits], address_of(bits, "kernel"))
    assert notes.hypercall_page == BASE[bits] + 0x100000
    assert notes.bsd_symtab
    assert read_notes(load_image(with_string(bits, legacy(bits, ELF_PADDR_OFFSET=None)))).paddr_offset == BASE[bits]


def test_a_domain_of_an_image_with_the_older_string(sessions: list[Session]) -> None:
    text = legacy(64, ELF_PADDR_OFFSET="0", HYPERCALL_PAGE=None)
    sessions.append(build(with_string(64, text)))
    assert sessions[0].machine.vcpus[0].rip == address_of(64, "kernel")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"XEN_VER": None}, "__xen_guest XEN_VER"),
        ({"XEN_VER": "xen-2.0"}, "__xen_guest XEN_VER"),
        ({"LOADER": None, "GUEST_OS": "other"}, "__xen_guest LOADER"),
        ({"VIRT_BASE": "here"}, "__xen_guest VIRT_BASE"),
        ({"PAE": "no"}, "__xen_guest PAE"),
        ({"FEATURES": "!supervisor_mode_kernel"}, "__xen_guest FEATURES"),
        ({"VIRT_ENTRY": "0"}, "__xen_guest VIRT_ENTRY"),
        ({"HYPERCALL_PAGE": "0x3000"}, "__xen_guest HYPERCALL_PAGE"),
        ({"VIRT_BASE": None}, "__xen_guest ELF_PADDR_OFFSET"),
    ],
)
def test_errors_name_the_part_of_the_string(sessions: list[Session], changes: dict[str, str], field: str) -> None:
    with pytest.raises(ImageError, match=field):
        sessions.append(build(with_string(32, legacy(32, **{"ELF_PADDR_OFFSET": "0", **changes}))))


@pytest.mark.parametrize("bits", [64, 32])
def test_a_symbol_table_behind_the_kernel(bits: int) -> None:
    builder = ElfBuilder(bits, address_of(bits, "kernel"))
    builder.text(".text", b"\x90" * 13)
    for name in ("first", "second"):
        builder.symbol(name, address_of(bits, "kernel") + len(name))
    loaded = load_image(builder.build())
    made = bsd_symtab(loaded)
    size = struct.unpack_from("<I", made)[0]
    assert size <= len(made) - 4 < size + bits // 8
    table = ELFFile(io.BytesIO(made[4:])).get_section(1)
    assert isinstance(table, SymbolTableSection)
    found = {symbol.name: symbol["st_value"] for symbol in table.iter_symbols() if symbol.name}
    assert found == {"first": address_of(bits, "kernel") + 5, "second": address_of(bits, "kernel") + 6}
    assert bsd_symtab(load_image(image(bits))) == b""


def test_the_domain_has_its_symbols_where_the_kernel_ends(sessions: list[Session]) -> None:
    builder = ElfBuilder(64, address_of(64, "kernel"))
    builder.text(".text", b"\x90" * 13)
    builder.symbol("first", address_of(64, "kernel"))
    builder.notes(
        ("Xen", ElfNote.XEN_VERSION, b"xen-3.0\0"),
        ("Xen", ElfNote.LOADER, b"generic\0"),
        ("Xen", ElfNote.VIRT_BASE, BASE[64].to_bytes(8, "little")),
        ("Xen", ElfNote.BSD_SYMTAB, b"yes\0"),
    )
    session = build(builder.build())
    sessions.append(session)
    loaded = session.kernel.image
    end = max(segment.physical + segment.memory_size for segment in loaded.segments)
    made = bsd_symtab(loaded)
    assert session.machine.vcpus[0].read_virtual(BASE[64] + (end + 7 & ~7), len(made)) == made


@pytest.mark.parametrize("bits", [64, 32])
def test_any_notes_make_a_domain_or_an_error(bits: int) -> None:
    word = bits // 8
    near = [BASE[bits], address_of(bits, "kernel"), 0, 1, 0x1000, 0xF580_0000, 1 << 39, 1 << 47, (1 << 64) - 0x1000]
    numbers = st.one_of(st.sampled_from(near), st.integers(0, (1 << 64) - 1)).map(
        lambda value: (value & (1 << bits) - 1).to_bytes(word, "little")
    )
    anything = st.one_of(numbers, st.binary(max_size=9), st.none())

    @settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
    @given(st.dictionaries(st.sampled_from(list(ElfNote)), anything, max_size=4))
    def notes(changes: dict[ElfNote, bytes | None]) -> None:
        try:
            session = build(image(bits, changes), memory=4 << 20)
        except PvopsError as error:
            assert isinstance(error, ImageError | MachineError)  # noqa: PT017 - either is right
            return
        assert audit.audit(session.platform.hv) == []  # type: ignore[attr-defined]
        session.close()

    notes()


def test_a_segment_beyond_memory_is_named() -> None:
    builder = ElfBuilder(64, address_of(64, "kernel"))
    builder.text(".text", b"\x90" * 13)
    builder.section(".far", bytes(8), address=BASE[64] + (1 << 29))
    builder.notes(
        ("Xen", ElfNote.XEN_VERSION, b"xen-3.0\0"),
        ("Xen", ElfNote.LOADER, b"generic\0"),
        ("Xen", ElfNote.VIRT_BASE, BASE[64].to_bytes(8, "little")),
    )
    with pytest.raises(MachineError, match="segment 1 of the kernel reaches to 512 MiB; the guest has 8 MiB"):
        build(builder.build())


@pytest.mark.parametrize("bits", [64, 32])
def test_thirty_two_vcpus_and_an_eighth_of_a_gigabyte(sessions: list[Session], bits: int) -> None:
    session = build(image(bits), memory=128 << 20, vcpus=32)
    sessions.append(session)
    assert session.run(max_ns=10**9).reason == "poweroff"
    assert audit.audit(session.platform.hv) == []  # type: ignore[attr-defined]
    with pytest.raises(MachineError, match="32 vCPUs"):
        build(image(bits), vcpus=33)


@pytest.mark.parametrize("bits", [64, 32])
def test_eight_mebibytes_are_enough_for_a_small_guest(bits: int) -> None:
    with SmallGuest(bits) as guest:
        assert guest.hv.domain.nr_pages == MEMORY >> 12
        assert guest.call(17, 0) == 4 << 16 | 17

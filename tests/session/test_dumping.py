"""Dumps of small kernels: whose VMCOREINFO they have, and what cannot be dumped."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
from elftools.elf.elffile import ELFFile

from pvops_core.dumps.notes import VMCOREINFO, note
from pvops_core.errors import HostError, MachineError, UsageError
from pvops_core.guests import Kernel
from pvops_core.images import load_image
from pvops_core.session import Session
from pvops_core.testing.images import ElfBuilder
from tests.session.conftest import BASE

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.machine import Vcpu

ROOT, NOTE = BASE + 0x2000, BASE + 0x3000
SPIN = b"\xeb\xfe"


class Make(Protocol):
    def __call__(self, bits: int = 64, note: bytes = b"", **symbols: int) -> Session: ...


@pytest.fixture
def make(backends: dict[str, Backend]) -> Iterator[Make]:
    """Makes a session of a kernel with these symbols, which has run for a while."""
    with ExitStack() as stack:

        def made(bits: int = 64, note: bytes = b"", **symbols: int) -> Session:
            builder = ElfBuilder(bits, BASE)
            builder.text(".text", SPIN.ljust(0x2000, b"\xcc"))
            builder.section(".data", bytes(0x1000) + note.ljust(0x1000, b"\0"))
            for name, address in symbols.items():
                builder.symbol(name, address)
            kernel = Kernel(load_image(builder.build(), "small"))
            session = stack.enter_context(Session(kernel, (backends["native"],), memory=32 << 20, vcpus=2))
            session.run(max_ns=10_000)
            return session

        yield made


def notes(path: Path) -> list[tuple[str, bytes]]:
    with path.open("rb") as file:
        first = next(ELFFile(file).iter_segments())
        return [(each["n_name"], bytes(each["n_descdata"])) for each in first.iter_notes()]


def lines(path: Path) -> dict[str, str]:
    """VMCOREINFO of a dump."""
    (text,) = (data for name, data in notes(path) if name == "VMCOREINFO")
    return dict(line.split("=") for line in text.decode().splitlines())


TEXT = {"_text": BASE, "_end": BASE + 0x4000, "init_top_pgt": ROOT}


def test_a_kernel_without_its_own_is_told_of_by_its_symbols(make: Make, tmp_path: Path) -> None:
    dumped = make(**TEXT).dump(tmp_path / "core")
    assert not dumped.own_info
    found = lines(tmp_path / "core")
    assert found["SYMBOL(swapper_pg_dir)"] == f"{ROOT:x}"
    assert (found["PAGESIZE"], found["KERNELOFFSET"], found["NUMBER(pgtable_l5_enabled)"]) == ("4096", "0", "0")
    assert int(found["NUMBER(phys_base)"]) + BASE - 0xFFFFFFFF80000000 == BASE
    assert [name for name, _data in notes(tmp_path / "core")] == ["CORE", "CORE", "VMCOREINFO"]


@pytest.mark.parametrize("kept", ["array", "pointer"])
def test_the_kernels_own_is_taken_where_it_keeps_it(make: Make, tmp_path: Path, kept: str) -> None:
    """Until 4.12 an array is there, then a pointer."""
    whole = note(VMCOREINFO, 0, b"OSRELEASE=9\nPAGESIZE=4096\n")
    data = whole if kept == "array" else struct.pack("<Q", NOTE + 8) + whole
    session = make(note=data, **TEXT, vmcoreinfo_note=NOTE)
    assert session.dump(tmp_path / "core").own_info
    assert lines(tmp_path / "core")["OSRELEASE"] == "9"


@pytest.mark.parametrize("data", [b"", struct.pack("<Q", 0x7777_7777_7000), note(VMCOREINFO, 0, b"")])
def test_one_that_is_not_finished_is_not_taken(make: Make, tmp_path: Path, data: bytes) -> None:
    assert not make(note=data, **TEXT, vmcoreinfo_note=NOTE).dump(tmp_path / "core").own_info


def test_memory_is_in_the_file_as_it_is(make: Make, tmp_path: Path) -> None:
    session = make(**TEXT)
    before = session.machine.log.sha256, session.machine.clock.ns, bytes(session.machine.memory.array)
    session.dump(tmp_path / "core")
    assert (session.machine.log.sha256, session.machine.clock.ns, bytes(session.machine.memory.array)) == before
    with (tmp_path / "core").open("rb") as file:
        _notes, text, memory = ELFFile(file).iter_segments()
        assert text.data()[:2] == SPIN
        assert memory.data() == before[2]


def refused(session: Session, path: Path, kind: type[Exception], words: str) -> None:
    path.write_bytes(b"old")
    with pytest.raises(kind, match=words):
        session.dump(path)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_32_bit_kernel_is_refused_with_the_reason(make: Make, tmp_path: Path) -> None:
    refused(make(32, **TEXT), tmp_path / "core", UsageError, "32-bit kernel.*translates")


def test_the_built_in_guest_is_no_kernel_to_debuggers(backends: dict[str, Backend], tmp_path: Path) -> None:
    with Session.of_builtin("6.1-64", "native", backends=backends) as session:
        refused(session, tmp_path / "core", UsageError, "no kernel")


@pytest.mark.parametrize("missing", ["_text", "init_top_pgt"])
def test_without_symbols_nothing_says_where_things_are(make: Make, tmp_path: Path, missing: str) -> None:
    symbols = {name: address for name, address in TEXT.items() if name != missing}
    refused(make(**symbols), tmp_path / "core", UsageError, missing)


def test_what_is_no_file_stays(make: Make, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no regular file"):
        make(**TEXT).dump(tmp_path)


def test_a_file_that_cannot_be_written_is_told(make: Make, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be written: No such file"):
        make(**TEXT).dump(tmp_path / "nowhere" / "core")


def test_a_handler_cannot_dump(make: Make, tmp_path: Path) -> None:
    session, seen = make(**TEXT), []

    def dump(_vcpu: Vcpu) -> None:
        with pytest.raises(MachineError, match="handler"):
            session.dump(tmp_path / "core")
        seen.append(1)
        session.machine.stop("until", "seen")

    session.machine.break_at(BASE, dump)
    session.run(max_ns=1_000_000)
    assert seen
    assert not (tmp_path / "core").exists()

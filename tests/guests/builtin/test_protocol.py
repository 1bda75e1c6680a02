"""boot_info and the report: what Python packs and unpacks against what the compiler laid out."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvops_core.errors import MachineError, UsageError
from pvops_core.guests import LAYOUTS, BootInfo, PlatformKind, Report, Status, builtin_guest
from pvops_core.guests.builtin import bootinfo, report

if TYPE_CHECKING:
    from pvops_core.images import KernelImage

NUMBERS = (
    "platform",
    "nr_pages",
    "ncpus",
    "tick_hz",
    "root",
    "table_pfn",
    "table_frames",
    "first_pfn",
    "seed",
    "start_info",
    "shared_info",
    "mfn_list",
)


def fields(image: KernelImage, section: str) -> dict[str, tuple[int, int]]:
    """A table of struct fields that the compiler made: name to offset and size; "" is the whole struct."""
    data = image.section_bytes(section)
    assert data is not None
    return {name.rstrip(b"\0").decode(): (offset, size) for name, offset, size in struct.iter_unpack("<16sII", data)}


@pytest.fixture(params=LAYOUTS)
def boot_fields(request: pytest.FixtureRequest) -> dict[str, tuple[int, int]]:
    return fields(builtin_guest(request.param).image, ".boot_info_layout")


def test_boot_info_fields_lie_where_c_has_them(boot_fields: dict[str, tuple[int, int]]) -> None:
    values: dict[str, int] = {name: 0x1000 + number for number, name in enumerate(NUMBERS)}
    values["platform"] = PlatformKind.LGUEST
    line = "one two=2"
    info = BootInfo(**values, features=(0, 33, 0x110, 0x114), command_line=line)  # type: ignore[arg-type]
    data = info.pack()
    assert attrs.asdict(BootInfo.unpack(data)) == attrs.asdict(info) | {"features": [0, 33, 0x110, 0x114]}
    assert boot_fields.pop("") == (0, len(data))
    values |= {"magic": bootinfo.MAGIC, "version": bootinfo.VERSION, "size": len(data)}
    words = data[slice(boot_fields["features"][0], sum(boot_fields["features"]))]
    numbers = int.from_bytes(words, "little")
    assert {bit for bit in range(len(words) * 8) if numbers >> bit & 1} == {0, 33, 0x110, 0x114}
    start, size = boot_fields["command_line"]
    assert data[start : start + size].rstrip(b"\0") == line.encode()
    for name, (offset, size) in boot_fields.items():
        if name not in {"features", "command_line"}:
            assert int.from_bytes(data[offset : offset + size], "little") == values[name], name
    assert values.keys() | {"features", "command_line"} == boot_fields.keys()


BASE = {"platform": PlatformKind.BARE, "nr_pages": 1, "root": 0, "table_pfn": 0, "table_frames": 0, "first_pfn": 0}


@given(st.text(max_size=400))
@settings(max_examples=50, derandomize=True)
def test_command_line_fits_or_is_refused(line: str) -> None:
    info = BootInfo(**BASE, command_line=line)  # type: ignore[arg-type]
    if len(line.encode()) < bootinfo.COMMAND_LINE and "\0" not in line:
        assert BootInfo.unpack(info.pack()).command_line == line
    else:
        with pytest.raises(UsageError, match="command line"):
            info.pack()


@pytest.mark.parametrize("feature", [-1, 32 * bootinfo.FEATURE_WORDS])
def test_unknown_feature_is_refused(feature: int) -> None:
    with pytest.raises(UsageError, match="feature"):
        BootInfo(**BASE, features=(feature,)).pack()  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [b"", bytes(bootinfo.FORMAT.size), b"PVOI" + bytes(bootinfo.FORMAT.size - 4)])
def test_bytes_that_are_no_boot_info_are_refused(data: bytes) -> None:
    with pytest.raises(UsageError, match="boot_info"):
        BootInfo.unpack(data)


def test_number_too_large_is_refused() -> None:
    with pytest.raises(UsageError, match="boot_info"):
        BootInfo(**{**BASE, "first_pfn": 1 << 64}).pack()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", LAYOUTS)
def test_report_fields_lie_where_c_has_them(name: str) -> None:
    table = fields(builtin_guest(name).image, ".report_layout")
    size = table.pop("")[1]
    data = bytearray(size)
    values = {field: number + 1 for number, field in enumerate(table)}
    values |= {"magic": report.MAGIC, "size": size, "status": Status.DONE}
    for field, (offset, width) in table.items():
        data[offset : offset + min(width, 8)] = values[field].to_bytes(min(width, 8), "little")
    found = Report.unpack(bytes(data))
    renamed = {"results": "result_count", "exit_codes": ""}
    for field, value in values.items():
        attribute = renamed.get(field, field)
        if attribute and attribute not in {"magic", "size"}:
            assert getattr(found, attribute) == value, field
    assert found.exit_codes[0] == values["exit_codes"]


def test_fresh_report_is_running() -> None:
    guest = builtin_guest("2.6.24")
    found = Report.read(guest.symbols, guest.image.read)
    assert found.status is Status.RUNNING
    assert found.results["status"] == "running"
    assert found.counts["pokes"] == 0


def test_damaged_report_is_told() -> None:
    with pytest.raises(MachineError, match="damaged"):
        Report.unpack(bytes(report.FORMAT.size))

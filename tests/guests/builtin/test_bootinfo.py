"""``struct boot_info``: where C has it, and what is refused."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvops_core.errors import UsageError
from pvops_core.guests import LAYOUTS, BootInfo, PlatformKind, builtin_guest
from pvops_core.guests.builtin import bootinfo
from tests.guests.builtin.structures import fields

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

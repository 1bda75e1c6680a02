"""docs/reference/guest.md says what the source has."""

from __future__ import annotations

import re
from pathlib import Path

from pvops_core.guests import LAYOUTS, builtin_guest
from pvops_core.guests.builtin.build import SOURCE

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "guest.md").read_text()


def test_every_option_is_described() -> None:
    text = "".join(path.read_text() for path in SOURCE.glob("*.[ch]"))
    options = set(re.findall(r'option\("([^"]+)"\)', text))
    assert options
    assert {name for name in options if f"| `{name}` |" not in PAGE} == set()


def test_every_field_of_boot_info_is_described() -> None:
    section = builtin_guest("6.1-64").image.section_bytes(".boot_info_layout")
    assert section is not None
    names = [section[at : at + 16].rstrip(b"\0").decode() for at in range(24, len(section), 24)]
    rows = {
        name.strip()
        for row in re.findall(r"^\| ([\w, ]+) \| (?:u32|u64|char)", PAGE, re.MULTILINE)
        for name in row.split(",")
    }
    assert rows == set(names)


def test_every_object_and_offset_is_described() -> None:
    assert all(f"`guest-{name}.elf`" in PAGE for name in LAYOUTS)
    offsets = {name for name in builtin_guest("6.1-64").symbols if name.endswith("_offset")}
    assert offsets == set(re.findall(r"`(\w+_offset)`", PAGE))

"""The tables of ORC, of three ages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from pvops_core.guest.stacks.orc import Base, Orc, OrcKind, read_orc
from pvops_core.images import load_image
from pvops_core.testing.images import ElfBuilder
from tests.guest.stacks.frames import ENTRY, LINES, NEW, TEXT, tables

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_where_the_numbering_cannot_be_told_nothing_is_known() -> None:
    rows = np.array([(8, 0, 7 | NEW[OrcKind.CALL] << 8)], dtype=ENTRY)  # all from R13
    assert Orc(np.array([TEXT], dtype=np.uint64), rows, header=True).find(TEXT) is None


@pytest.mark.kernel
@pytest.mark.parametrize("name", ["6.1.0-56-cloud-amd64", "6.12.117+deb12-cloud-amd64", "7.2.13+deb14-cloud-amd64"])
def test_tables_of_three_ages_say_where_a_function_that_begins_returns_to(
    name: str, kernel_path: Callable[[str], Path]
) -> None:
    image = load_image(kernel_path(f"vmlinuz-{name}"))
    orc = read_orc(image)
    assert orc is not None
    for function in ("do_exit", "vfs_read", "schedule"):
        assert orc.find(image.symbols[function]) == (Base.SP, 8, Base.UNDEFINED, 0, OrcKind.CALL, False)


def test_of_6_3_the_bit_of_the_end_lies_behind_that_of_signals() -> None:
    """Its places where registers were saved have the bit that says the end in others."""
    call, saved, end = 5, 5 | 1 << 8 | 1 << 10, 1 << 11
    places = np.array([TEXT, TEXT + 4, TEXT + 8], dtype=np.uint64)
    rows = np.array([(8, 0, call), (0, 0, saved), (0, 0, end)], dtype=ENTRY)
    late = Orc(places, rows, header=False)
    assert late.find(TEXT + 4) == (Base.SP, 0, Base.UNDEFINED, 0, OrcKind.REGS, True)
    found = late.find(TEXT + 8)
    assert found is not None
    assert found.kind is OrcKind.END
    rows["bits"][2] = 1 << 10
    early = Orc(places, rows, header=False).find(TEXT + 8)
    assert early is not None
    assert early.kind is OrcKind.END


def test_changes_are_told_once_and_agree_with_what_is_found() -> None:
    doubled = (line for at, *rest in LINES for line in ((at * 16, *rest), (at * 16 + 8, *rest)))
    orc = tables(*doubled, header=True)  # type: ignore[arg-type] - mypy does not put tuples together
    told = list(orc.changes())
    assert [place for place, _ in told] == [TEXT + line[0] * 16 for line in LINES]
    assert all(orc.find(place) == orc.find(place + 8) == entry for place, entry in told)


@pytest.mark.parametrize("cut", [1, 2, 4, 6])
def test_tables_that_do_not_fit_together_are_none(cut: int) -> None:
    builder = ElfBuilder(base=TEXT)
    builder.text(".text", bytes(8))
    builder.section(".orc_unwind_ip", bytes(8))
    builder.section(".orc_unwind", bytes(12)[cut:])
    assert read_orc(load_image(builder.build(), "vmlinux")) is None

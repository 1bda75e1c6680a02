"""The tables of ORC, of three ages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from pvops_core.guest.stacks.orc import Base, Orc, OrcKind, read_orc
from pvops_core.images import load_image
from tests.guest.stacks.frames import ENTRY, NEW, TEXT

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
        assert orc.find(image.symbols[function]) == (Base.SP, 8, Base.UNDEFINED, 0, OrcKind.CALL)

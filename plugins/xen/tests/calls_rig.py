"""Arguments of hypercalls."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from conftest import Bench

ARGUMENT, OTHER = 0x110, 0x340
SELF = 0x7FF0


def _operations(bench: Bench, number: int, data: bytes, expected: Mapping[int, int], limit: int) -> None:
    found = {}
    for command in range(limit):
        argument = bench.write(ARGUMENT, data)
        found[command] = bench.call(number, command, argument)
    assert found == {command: expected.get(command, -errno.ENOSYS) for command in range(limit)}

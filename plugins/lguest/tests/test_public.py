"""lguest's structures: offsets as 32-bit kernels of each generation have them, and gcc's layout of the declarations."""

from __future__ import annotations

from pathlib import Path

import pytest
from pvops_lguest import public
from pvops_lguest.host.abi import ABIS, DataLayout

from pvops_core.headers import Header
from pvops_core.testing.headers import check_layout

HEADERS = [value for value in vars(public).values() if isinstance(value, Header)]
OLD = {"irq_enabled": 0, "blocked_interrupts": 4, "cr2": 8, "time": 12, "hcall_status": 20, "hcalls": 84}
NEW = OLD | {"irq_pending": 20, "hcall_status": 24, "hcalls": 88, "reserve_mem": 1368, "tsc_khz": 1372}
BEHIND_24 = {"tsc_khz": 1112, "pgdir": 1116, "kernel_address": 1128, "syscall_vec": 1132, "size": 1136}
BEHIND_31 = {"pgdir": 1376, "noirq_start": 1380, "kernel_address": 1388, "syscall_vec": 1392, "size": 1396}
# As kernels of each release that boot under it have them.
OFFSETS = {
    "2.6.23": OLD | {"reserve_mem": 1108, "guestid": 1112, "tsc_khz": 1116, "noirq_start": 1120, "size": 1128},
    "2.6.24": OLD | {"reserve_mem": 1108, "noirq_start": 1120, "noirq_end": 1124} | BEHIND_24,
    "2.6.30": OLD | {"reserve_mem": 1108, "noirq_start": 1120, "noirq_end": 1124} | BEHIND_24,
    "2.6.31": NEW | BEHIND_31,
    "2.6.35": NEW | {"noirq_start": 1376, "noirq_end": 1380, "kernel_address": 1384, "syscall_vec": 1388, "size": 1392},
}
RINGS = {"2.6.23": (0, 1, 2, 3), "2.6.24": (0, 2, 3, 1), "2.6.25": (0, 2, 3, 1), "2.6.30": (0, 1, 2, 3)}
RINGS |= {"2.6.31": (0, 1, 2, 3, 4), "2.6.35": (0, 1, 2, 3, 4)}


@pytest.mark.parametrize("name", OFFSETS)
def test_the_members_are_where_the_kernel_has_them(name: str) -> None:
    data = ABIS[name].data
    assert {member: getattr(data, member) for member in OFFSETS[name]} == OFFSETS[name]


def test_a_generation_without_a_member_says_so() -> None:
    assert [ABIS[name].data.guestid is None for name in ABIS] == [False, True, True, True, True, True]
    assert [ABIS[name].data.irq_pending is None for name in ABIS] == [True, True, True, True, False, False]
    assert [ABIS[name].data.pgdir is None for name in ABIS] == [True, False, False, False, False, True]
    assert {ABIS["2.6.24"].data, ABIS["2.6.25"].data, ABIS["2.6.30"].data} == {DataLayout.of(ABIS["2.6.24"].structure)}


@pytest.mark.parametrize("name", RINGS)
def test_a_ring_entry_has_its_arguments_in_the_order_of_its_age(name: str) -> None:
    assert ABIS[name].ring_words == RINGS[name]
    assert ABIS[name].ring_stride == 4 * len(RINGS[name])


def test_a_compiler_lays_them_out_alike() -> None:
    assert check_layout(HEADERS, public.BITS) > 80


def test_the_declarations_go_with_the_package() -> None:
    assert {path.name for path in Path(public.__file__).parent.glob("*.h")} == {header.path.name for header in HEADERS}

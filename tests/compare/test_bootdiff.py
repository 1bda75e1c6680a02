from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pvops_core.compare.bootdiff import SiteDifference, boot_differences, console_lines, named_ops
from pvops_core.compare.comparison import GroupResult, grouped
from pvops_core.compare.differences import LinePair
from pvops_core.errors import UsageError
from pvops_core.ops import LAYOUTS
from pvops_core.runs.observation import Observation

Make = Callable[..., Observation]
Boot = Callable[..., Observation]
CALL, INLINED = "e80102030490", "fa0f1f440000"


@pytest.fixture
def boot(make: Make) -> Boot:
    def one(backend: str, **fields: Any) -> Observation:  # noqa: ANN401 -- every field of an observation
        return make(backend, layout="", cell={"guest": "/boot/vmlinuz"}, **fields)

    return one


def group(*boots: Observation) -> GroupResult:
    (only,) = grouped(boots)
    return only


def test_sites_differ_by_their_bytes_and_are_counted_by_op(boot: Boot) -> None:
    native = boot("native", site_codes={"irq_disable": {"0x10": INLINED, "0x20": INLINED}, "wbinvd": {"0x30": "0f09"}})
    xen = boot("xen", site_codes={"irq_disable": {"0x10": CALL, "0x20": INLINED}, "wbinvd": {"0x30": "0f09"}})
    (difference,) = boot_differences(group(native, xen))
    assert difference.compared == 3
    assert difference.by_op == {"irq_disable": 1, "wbinvd": 0}
    assert difference.sites == (SiteDifference("irq_disable", "0x10", INLINED, CALL),)


def test_only_sites_that_both_read_are_compared(boot: Boot) -> None:
    native = boot("native", site_codes={"irq_disable": {"0x10": INLINED, "0x20": INLINED}, "wbinvd": {"0x30": "0f09"}})
    other = boot("other", site_codes={"irq_disable": {"0x20": CALL}})
    (difference,) = boot_differences(group(native, other))
    assert (difference.compared, len(difference.sites)) == (1, 1)
    (unread,) = boot_differences(group(native, boot("lost", site_codes={})))
    assert unread.compared == 0


def test_consoles_are_aligned_without_what_differs_in_every_boot(boot: Boot) -> None:
    left = boot("native", console="[    0.000000] Linux\n[    0.100000] PnP found\nfirst\n")
    right = boot("xen", console="[    0.000001] Linux\r\n[    1.5] Xen\nfirst\n")
    (difference,) = boot_differences(group(left, right))
    assert difference.unlike == (LinePair("PnP found", "Xen"),)


@pytest.mark.parametrize(
    ("line", "bare"),
    [
        ("[    0.123456] text", "text"),
        ("[12345.678901][    T1] text", "text"),
        ("[    1.000000] [   C0] text", "text"),
        ("guest-init: [0.5] text", "guest-init: [0.5] text"),
        ("[drm] text", "[drm] text"),
    ],
)
def test_only_time_stamps_are_taken_off(line: str, bare: str) -> None:
    assert console_lines(line) == [bare]


@pytest.mark.parametrize(
    ("patterns", "op", "asked"),
    [
        ((), "save_fl", False),
        (("save_fl",), "save_fl", True),
        (("save_fl",), "wbinvd", False),
        (("irq.save_fl",), "save_fl", True),
        (("irq.*",), "irq_disable", True),
        (("irq.*",), "write_cr3", False),
        (("*_cr3", "wbinvd"), "write_cr3", True),
    ],
)
def test_ops_are_asked_for_by_name_path_and_pattern(patterns: tuple[str, ...], op: str, asked: bool) -> None:  # noqa: FBT001
    assert (op in named_ops(patterns, LAYOUTS.values())) is asked


def test_an_op_that_there_is_not_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"no op 'save_flags'; there are .*did you mean save_fl"):
        named_ops(("save_flags",), LAYOUTS.values())

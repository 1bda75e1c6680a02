"""All alternatives of a kernel on a CPU."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from pvops_native.kernel import NativeKernel
from pvops_xen.kernel import XenKernel

from pvops_core.images import load_image
from pvops_core.ops import LAYOUTS
from pvops_core.patching.altinstructions.alternatives import ALWAYS, AltEntry, AltGroup, grouped
from pvops_core.patching.altinstructions.cpus import MODELS
from pvops_core.patching.altinstructions.whole import kind_of, plan_alternatives
from pvops_core.patching.bootrecords import read_record
from pvops_core.patching.kernel import plan_kernel, read_kernel
from pvops_core.patching.plan import PlannedGroup
from pvops_core.testing.kernels import Alternative, SmallKernel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pvops_core.images import KernelImage
    from pvops_core.patching.fills import KernelFill

NATIVE: list[KernelFill] = [NativeKernel()]
XEN: list[KernelFill] = [NativeKernel(), XenKernel()]
BOOTS = {
    "c612-native": ("vmlinuz-6.12.117+deb12-cloud-amd64", NATIVE),
    "g612-xen1": ("vmlinuz-6.12.117+deb12-amd64", XEN),
    "c72-native": ("vmlinuz-7.2.13+deb14-cloud-amd64", NATIVE),
}


@pytest.mark.kernel
@pytest.mark.parametrize("record", BOOTS)
def test_every_place_is_as_a_real_boot_left_it(
    kernels: Callable[[str], KernelImage],
    oracle: Callable[[str], Mapping[str, Any]],
    record: str,
    tmp_path: Path,
) -> None:
    name, fills = BOOTS[record]
    image, path = kernels(name), tmp_path / "record.json"
    path.write_text(json.dumps(oracle(record)))
    boot = read_record(path, image)
    plan = plan_alternatives(plan_kernel(read_kernel(image), fills, 1), boot.features(image))
    assert len(plan.groups) == len(boot.alternatives) == oracle(record)["alternatives"]["n"]
    wrong = [planned for planned in plan.groups if boot.alternatives[planned.group.address] != planned.final]
    assert not wrong
    assert not plan.left_out
    changed = {address for address, _code in _before(oracle(record)["alternatives"])}
    assert {planned.group.address for planned in plan.groups if _moved(image, planned)} == changed


@pytest.mark.kernel
@pytest.mark.parametrize(("record", "hidden"), [("c612-native", set()), ("c72-native", set()), ("g612-xen1", {12, 13})])
def test_a_model_by_name_is_what_linux_finds_on_bare_metal(
    kernels: Callable[[str], KernelImage],
    oracle: Callable[[str], Mapping[str, Any]],
    record: str,
    hidden: set[int],
    tmp_path: Path,
) -> None:
    """Under Xen some features of the same CPU are hidden: mtrr, pge, and the bug that sysret has under AMD."""
    name, fills = BOOTS[record]
    image, path = kernels(name), tmp_path / "record.json"
    path.write_text(json.dumps(oracle(record)))
    finals = read_record(path, image).alternatives
    plan = plan_kernel(read_kernel(image), fills, 1)
    groups = plan_alternatives(plan, MODELS["qemu64"].features(image)).groups
    wrong = [planned.group for planned in groups if finals[planned.group.address] != planned.final]
    asked = {entry.feature for group in wrong for entry in group.entries} - {ALWAYS, 22 * 32 + 8}
    assert asked == hidden
    assert len(wrong) == (9 if hidden else 0)


def _before(groups: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Places whose bytes were not those of the file any more when the kernel came to its alternatives."""
    addresses, at = [], int(groups["va0"], 16)
    for step in groups["dva"]:
        at += step
        addresses.append(at)
    return [(addresses[index], code) for index, code in groups["enter_differs"]]


def _moved(image: KernelImage, planned: PlannedGroup) -> bool:
    return image.read(planned.group.address, planned.group.length) != planned.original


def planned(entries: list[tuple[int, bool]], final: str, *, direct: bool = False) -> PlannedGroup:
    made = tuple(AltEntry(0x1000, 6, 0x2000, 1, number, inverted, direct) for number, inverted in entries)
    return PlannedGroup(AltGroup(0x1000, 6, made), bytes(6), None, bytes.fromhex(final))


@pytest.mark.parametrize(
    ("group", "kind"),
    [
        (planned([(ALWAYS, False)], "fa 0f 1f 44 00 00", direct=True), "op"),
        (planned([(11 * 32 + 12, True)], "ff e0"), "retpoline"),
        (planned([(3, False)], "e8 00 00 00 00"), "call"),
        (planned([(3, False)], "eb 16 cc cc cc"), "jump"),
        (planned([(3, False)], "e9 00 00 00 00"), "jump"),
        (planned([(3, False)], "66 0f 1f 44 00 00"), "nop"),
        (planned([(3, False)], "eb 0a " + "cc" * 10), "nop"),
        (planned([(3, False)], "0f 01 cb"), "code"),
        (planned([(3, False)], "06"), "code"),
    ],
)
def test_kinds(group: PlannedGroup, kind: str) -> None:
    assert kind_of(group, 64) == kind


def test_a_group_is_as_long_as_its_longest_and_ends_with_its_address() -> None:
    entries = [AltEntry(at, size, 0, 0, 1, inverted=False) for at, size in ((8, 3), (8, 6), (20, 2), (8, 4))]
    assert [(group.address, group.length, len(group.entries)) for group in grouped(entries)] == [
        (8, 6, 2),
        (20, 2, 1),
        (8, 4, 1),
    ]


@pytest.mark.parametrize(("features", "index"), [((), None), ((5,), 0), ((7,), 1), ((5, 7), 1), ((5, 7, 9), 1)])
def test_the_last_that_applies_wins(features: tuple[int, ...], index: int | None) -> None:
    entries = tuple(AltEntry(8, 6, 0, 0, number, inverted=False) for number in (5, 7))
    chosen = AltGroup(8, 6, entries).chosen(frozenset(features))
    assert chosen == (entries[index] if index is not None else None)


def test_alternatives_of_6_1_are_followed_after_the_paravirt_step() -> None:
    layout = LAYOUTS["6.1-64"]
    entries = [Alternative(1, 77, inverted=False, code=b"\x0f\x01\xcb")]
    kernel = load_image(SmallKernel(layout, types=range(84), alternatives=entries).builder().build())
    plan = plan_kernel(read_kernel(kernel), [], 1)
    without, having = (plan_alternatives(plan, frozenset(features)).groups for features in ((), (77,)))
    assert without[0].final == plan.sites[1].paravirt
    assert having[0].final == bytes.fromhex("0f01cb0f1f00")


def test_steps_that_are_not_followed_are_named() -> None:
    layout = LAYOUTS["7.2-64"]
    kernel = SmallKernel(layout, types=range(78), typed=True)
    builder = kernel.builder()
    builder.section(".cfi_sites", bytes(8))
    builder.section(".call_sites", bytes(8))
    plan = plan_kernel(read_kernel(load_image(builder.build())), [], 1)
    assert plan_alternatives(plan, frozenset({11 * 32 + 19})).left_out == ("FineIBT", "call thunks")

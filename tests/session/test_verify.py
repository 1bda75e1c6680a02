"""The three-way check, on a small kernel that patches itself as the test says, and the reading of records."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pvops_core import records
from pvops_core.guests import Kernel
from pvops_core.patching.bootrecords import find_records
from pvops_core.patching.kernel import KernelPlan, plan_kernel, read_kernel
from pvops_core.session import Session
from pvops_core.session.verify import PatchingCheck
from pvops_core.testing.kernels import Alternative
from tests.session.selfpatching import SelfPatching, Writes

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.images import KernelImage

SITES = ("irq.irq_disable", "mmu.write_cr3", "lock.wait")
Change = Callable[[str, int, bytes], bytes]


def small() -> SelfPatching:
    """Its first site has an ALTERNATIVE that every CPU without feature 272 gets: cli."""
    kernel = SelfPatching.of(*SITES)
    kernel.alternatives = [Alternative(0, 272, inverted=True, code=b"\xfa")]
    return kernel


def faithful(change: Change = lambda _step, _number, code: code) -> tuple[Writes, KernelPlan]:
    """What the kernel has to write to be as planned, and the plan."""
    plan = plan_kernel(read_kernel(small().build()), [], 1)
    steps = {"apply_paravirt": "paravirt", "alternative_instructions": "final"}
    return {
        function: [
            (planned.site.address, change(step, number, getattr(planned, step)))
            for number, planned in enumerate(plan.sites)
        ]
        for function, step in steps.items()
    }, plan


def checked(backends: Mapping[str, Backend], image: KernelImage, folder: Path | None = None) -> PatchingCheck:
    with Session(Kernel(image), (backends["native"],), memory=32 << 20) as session:
        records = find_records(folder, image.sha256) if folder else ()
        check = PatchingCheck(session, [], records)
        assert not check.equal
        assert session.run().reason == "poweroff"
        check.found()
        return check


def test_a_kernel_that_patches_as_planned_is_equal(backends: dict[str, Backend]) -> None:
    writes, plan = faithful()
    check = checked(backends, small().build(writes))
    assert check.equal
    document = records.document(check.found())
    assert document["steps"] == {"paravirt": 0, "final": 0}
    assert (document["sites"], document["record"], document["differences"]) == (3, None, [])
    assert plan.sites[0].final[:1] == b"\xfa"


def test_a_byte_that_differs_is_shown_with_all_it_takes(backends: dict[str, Backend]) -> None:
    def change(step: str, number: int, code: bytes) -> bytes:
        return b"\xfb" + code[1:] if (step, number) == ("final", 0) else code

    writes, plan = faithful(change)
    check = checked(backends, small().build(writes))
    assert not check.equal
    (difference,) = check.found().differences
    planned = plan.sites[0]
    assert difference.address == f"{planned.site.address:#x}"
    assert (difference.step, difference.op, difference.record) == ("final", "irq.irq_disable", None)
    assert difference.predicted == planned.final.hex()
    assert difference.kernel == "fb" + planned.final.hex()[2:]
    assert difference.assembly["predicted"].startswith("cli; nop")
    assert difference.assembly["kernel"].startswith("sti; nop")


def test_a_slot_that_the_kernel_fills_otherwise_is_a_difference(backends: dict[str, Backend]) -> None:
    writes, plan = faithful()
    slot = plan.kernel.slot_addresses[0] + 8 * plan.kernel.layout.by_path("mmu.read_cr3").type
    filled = {**writes, "apply_paravirt": [*writes["apply_paravirt"], (slot, b"\x10")]}
    check = checked(backends, small().build(filled))
    (difference,) = check.differences()
    assert (difference.step, difference.op, difference.address) == ("slot", "mmu.read_cr3", f"{slot:#x}")


def test_a_kernel_that_does_not_patch_differs_everywhere(backends: dict[str, Backend]) -> None:
    check = checked(backends, small().build())
    assert check.found().steps == {"paravirt": 3, "final": 3}


def record(image: KernelImage, plan: KernelPlan, **changes: object) -> dict[str, Any]:
    addresses = [planned.site.address for planned in plan.sites]
    document = {
        "format": "pvops-oracle/1",
        "run": "test",
        "vmlinux_sha256": image.sha256,
        "ops": [["", f"{target:#x}", None] for target in plan.table],
        "n": 3,
        "va0": f"{addresses[0]:#x}",
        "dva": [0, *(after - before for before, after in pairwise(addresses))],
        "len": [6, 6, 6],
        "pv": b"".join(planned.paravirt or b"" for planned in plan.sites).hex(),
        "final": b"".join(planned.final for planned in plan.sites).hex(),
    }
    return document | changes


def test_a_record_of_the_same_boot_is_the_third_witness(backends: dict[str, Backend], tmp_path: Path) -> None:
    writes, plan = faithful()
    image = small().build(writes)
    document = record(image, plan)
    other = [["", "0x1", None], *document["ops"][1:]]
    (tmp_path / "a.json").write_text(json.dumps(document | {"ops": other}))
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(json.dumps(document).encode()))
    (tmp_path / "c.json").write_text('{"format": "something else"}')
    (tmp_path / "d.json").write_text(json.dumps(document | {"vmlinux_sha256": "of another"}))
    check = checked(backends, image, tmp_path)
    assert check.equal
    assert check.record is not None
    assert check.record.path == str(tmp_path / "b.json.gz")
    assert check.found().records == {str(tmp_path / "a.json"): ("cpu.io_delay",), check.record.path: ()}
    (tmp_path / "b.json.gz").unlink()
    (tmp_path / "b.json").write_text(json.dumps(document | {"final": "00" + document["final"][2:]}))
    check = checked(backends, image, tmp_path)
    assert not check.equal
    (difference,) = check.differences()
    assert difference.record is not None
    assert (difference.step, difference.record[:2]) == ("final", "00")


def test_a_kernel_of_one_step_is_equal_after_that(backends: dict[str, Backend], tmp_path: Path) -> None:
    """From 6.8 on; its two tables do not lie one behind the other."""
    kernel = SelfPatching.of(*SITES, layout="7.2-64")
    kernel.typed = True
    plan = plan_kernel(read_kernel(kernel.build()), [], 1)
    final = [(planned.site.address, planned.final) for planned in plan.sites]
    image = kernel.build({"alternative_instructions": final})
    changes = {"format": "pvops-oracle/2", "final": b"".join(code for _at, code in final).hex()}
    (tmp_path / "a.json").write_text(json.dumps(record(image, plan, **changes)))
    check = checked(backends, image, tmp_path)
    assert check.equal
    document = records.document(check.found())
    assert document["steps"] == {"final": 0}
    assert document["record"] == str(tmp_path / "a.json")
    changes["final"] = "00" + changes["final"][2:]
    (tmp_path / "a.json").write_text(json.dumps(record(image, plan, **changes)))
    assert checked(backends, image, tmp_path).found().steps == {"final": 1}
    assert checked(backends, kernel.build()).found().steps == {"final": 3}


@pytest.mark.parametrize("honest", [True, False])
def test_a_hook_of_ours_is_no_difference_and_hides_none(backends: dict[str, Backend], *, honest: bool) -> None:
    """The kernel patches itself with the hook's entry in its slot; what it does wrong beside that is seen still."""

    def calling(entry: int) -> KernelImage:
        writes, plan = faithful(lambda _step, number, code: b"\x0f" + code[1:] if number == 0 and not honest else code)
        at = plan.sites[1].site.address
        call = (at, b"\xe8" + (entry - at - 5).to_bytes(4, "little", signed=True) + b"\x90")
        return small().build({step: [*sites, call] for step, sites in writes.items()})

    def hooked(image: KernelImage) -> tuple[int, PatchingCheck]:
        with Session(Kernel(image), (backends["native"],), memory=32 << 20) as session:
            check = PatchingCheck(session, [], ())
            hook = session.hooks.install("write_cr3", lambda _cpu: None)
            assert session.run().reason == "poweroff"
            return hook.entry, check

    entry, _check = hooked(calling(0))
    again, check = hooked(calling(entry))
    assert again == entry
    assert {each.op for each in check.differences()} == (set() if honest else {"irq.irq_disable"})
    assert check.equal is honest

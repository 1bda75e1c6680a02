"""``--switch``: ops go to other implementations where the command line says, and what came of it is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pvops_core.cli import main
from pvops_core.errors import UsageError
from pvops_core.guests import LAYOUTS
from pvops_core.ops import LAYOUTS as CATALOGUE
from pvops_core.runs.orders import SwitchOrder
from tests.session.selfpatching import SelfPatching

HOOKS = """
def quiet(cpu):
    return 0

def look(cpu):
    return None

def strange(cpu, colour):
    pass

number = 5
"""
CELLS = [
    (backend, layout)
    for layout in LAYOUTS
    for backend in ("native", "xen", "lguest")
    if backend == "native"
    or (backend == "xen" and CATALOGUE[layout].kind.value != "i386")
    or (backend == "lguest" and CATALOGUE[layout].kind.value == "i386")
]


@pytest.fixture
def hooks(tmp_path: Path) -> Path:
    path = tmp_path / "hooks.py"
    path.write_text(HOOKS)
    return path


def document(target: Path, verb: str, *words: str) -> dict[str, Any]:
    assert main([verb, *words, "--json", str(target)]) == 0
    found: dict[str, Any] = json.loads(target.read_text())
    return found


@pytest.mark.parametrize(("backend", "layout"), CELLS)
def test_the_built_in_guest_goes_to_a_function_and_back(
    backend: str, layout: str, tmp_path: Path, hooks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--backend", backend, "--layout", layout]
    words += ["--switch", f"io_delay={hooks}:quiet@running", "--switch", f"io_delay={backend}@finished"]
    seen = document(tmp_path / "seen", "run", *words)
    mine = [each for each in seen["switch_log"] if each["by"] == "--switch"]
    there, back = mine
    assert (there["op"], there["to"], there["vcpu"], there["refused"]) == ("io_delay", f"{hooks}:quiet", 0, "")
    assert (back["from"], back["to"]) == (there["to"], there["from"])
    assert there["ns"] < back["ns"] <= seen["virtual_ns"]
    assert seen["results"]["status"] == "done"
    assert [order["made"] for order in seen["switch_orders"]] == [True, True]
    assert seen["counts"]["switches"] == len(seen["switch_log"])
    assert f"io_delay: {there['from']} -> {hooks}:quiet, by --switch at" in capsys.readouterr().out


def test_a_set_is_what_the_named_one_has(tmp_path: Path) -> None:
    seen = document(tmp_path / "seen", "run", "--backend", "xen", "--switch", "irq.*=native@finished")
    ops = {"save_fl", "irq_disable", "irq_enable", "safe_halt", "halt"}
    assert [set(order["of"]) for order in seen["switch_orders"]] == [ops]
    assert {each["op"] for each in seen["switch_log"] if each["to"].startswith("native.")} == ops


def test_a_time_is_a_place_and_one_that_never_comes_is_told(
    tmp_path: Path, hooks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--switch", f"io_delay={hooks}:quiet@1.5ms", "--switch", "io_delay=native@9s"]
    seen = document(tmp_path / "seen", "run", *words)
    (switch,) = seen["switch_log"]
    assert 1_500_000 <= switch["ns"] < 1_600_000
    assert switch["vcpu"] is None
    assert "switch not made     io_delay=native@9s: the guest did not come to 9s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ("write_cr3", "is not OP=WHAT@PLACE"),
        ("write_cr3=", "is not OP=WHAT@PLACE"),
        ("write_cr9=native", "no op 'write_cr9' (did you mean write_cr"),
        ("irk.*=native", "is called 'irk.*'; there are"),
        ("mmu.write_cr9=native", "no op path 'mmu.write_cr9'"),
        ("write_cr3=natives", "no implementation 'natives'"),
        ("write_cr3=kernel", "no implementation 'kernel'"),
        ("write_cr3=lguest", "no implementation 'lguest'"),
        ("write_cr3=native@nowhere", "no symbol 'nowhere'"),
        ("write_cr3=native@0x10", "no instruction at 0x10"),
        ("write_cr3={}:nothing", "has no 'nothing'"),
        ("write_cr3={}:number", "is not callable"),
        ("write_cr3={}:strange", "takes 'colour'"),
        ("write_cr3=no_such_module:note", "no_such_module"),
        ("write_cr3=elsewhere.py:note", "elsewhere.py"),
    ],
)
def test_what_cannot_be_is_named_before_the_run(
    order: str, message: str, hooks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--switch", order.format(hooks)]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert not shown.out


@pytest.mark.parametrize("text", ["a=b@c d", "=b", "a=@b", "a b=c", "a=b@c@d e"])
def test_an_order_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="is not OP=WHAT@PLACE"):
        SwitchOrder.parse(text)


def test_a_small_kernel_goes_between_a_function_and_its_own(tmp_path: Path, hooks: Path) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(SelfPatching.of("mmu.write_cr3", "mmu.read_cr3").build(body=(0, 1, 0)).data)
    words = [str(kernel), "--memory", "32", "--switch", f"write_cr3={hooks}:look"]
    words += ["--switch", "mmu.write_cr3=kernel@machine_power_off"]
    seen = document(tmp_path / "seen", "boot", *words)
    mine = [(each["from"], each["to"], each["vcpu"]) for each in seen["switch_log"] if each["by"] == "--switch"]
    name = f"{hooks}:look"
    assert mine == [("native_write_cr3", name, None), (name, "native_write_cr3", 0)]


def test_a_switch_alone_tells_whose_hook_served_and_which_did_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(SelfPatching.of("mmu.read_cr3", "mmu.write_cr3").build(body=(0, 1, 0)).data)
    words = [str(kernel), "--memory", "32"]
    own = document(tmp_path / "own", "boot", *words)["inside"]["ops"]
    told = capsys.readouterr().out
    assert not own["served"]
    assert "; the kernel's own functions serve, --ops lets them serve where they know the guest" in told

    found = document(tmp_path / "seen", "boot", *words, "--switch", "read_cr3=native@start_kernel")["inside"]["ops"]
    told = capsys.readouterr().out
    assert [(each["op"], each["implementation"], each["calls"]) for each in found["served"]] == [
        ("mmu.read_cr3", "native.read_cr3", 2)
    ]
    assert set(own["unused"]) - set(found["unused"]) >= {"mmu.read_cr3"}
    assert "ops                 1 in Python (1 of native): 2 calls" in told
    assert f"unused              hooks of native in Python: {len(found['unused'])} (" in told
    assert "--ops alone or with their names lets them" in told


def test_a_small_kernel_gets_another_function_of_its_own(tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinux"
    made = SelfPatching.of("mmu.write_cr3").build(body=(0,), functions={"other": b"\xc3"})
    kernel.write_bytes(made.data)
    words = [str(kernel), "--memory", "32", "--switch", "write_cr3=kernel:other@start_kernel"]
    seen = document(tmp_path / "seen", "boot", *words, "--trace", "ops")
    mine = [(each["from"], each["to"]) for each in seen["switch_log"] if each["by"] == "--switch"]
    assert mine == [("native_write_cr3", "other")]
    assert main(["boot", str(kernel), "--switch", "write_cr3=kernel:nosuch"]) == 2


def test_a_hook_that_stands_makes_no_switch_to_what_is_there(tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(SelfPatching.of("mmu.write_cr3").build(body=(0,)).data)
    seen = document(tmp_path / "seen", "boot", str(kernel), "--memory", "32", "--switch", "mmu.*=kernel@start_kernel")
    assert not [each for each in seen["switch_log"] if each["by"] == "--switch"]
    assert seen["switch_orders"][0]["made"]


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("vmlinuz-6.1.0-56-cloud-amd64", "native"),
        ("vmlinuz-6.1.0-56-cloud-amd64", "xen"),
        ("vmlinuz-6.12.117+deb12-cloud-amd64", "native"),
        ("vmlinuz-6.12.117+deb12-cloud-amd64", "xen"),
    ],
)
def test_debian_goes_between_a_function_and_its_own(
    name: str, backend: str, kernel_path: Callable[[str], Path], tmp_path: Path, hooks: Path
) -> None:
    words = [str(kernel_path(name)), "--backend", backend, "--stop-at", "patched"]
    words += ["--switch", f"write_cr4={hooks}:look@start_kernel", "--switch", "write_cr4=kernel@alternatives"]
    seen = document(tmp_path / "seen", "boot", *words)
    there, back = (each for each in seen["switch_log"] if each["by"] == "--switch")
    assert (there["op"], there["to"]) == ("write_cr4", f"{hooks}:look")
    assert (back["from"], back["to"]) == (there["to"], f"{backend}_write_cr4")

"""io_delay does nothing, in the built-in guest and in the table of a real kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from pvops_core.backends import load_backends
from pvops_core.ops import LAYOUTS
from pvops_core.session import Session
from pvops_core.testing.call import Caller
from pvops_core.testing.patched import PatchCaller
from pvops_core.testing.points import run_to

if TYPE_CHECKING:
    from pvops_core.images import KernelImage

BACKENDS = load_backends([str(Path(__file__).parents[1])]).backends


@pytest.fixture(params=["2.6.24", "2.6.24-pae", "6.1-64"])
def call(request: pytest.FixtureRequest) -> Iterator[Caller]:
    with Session.of_builtin(request.param, "vmware", backends=BACKENDS, memory=4 << 20) as session:
        run_to(session, "patched")
        yield Caller(session)


def test_io_delay_does_nothing(call: Caller) -> None:
    done = call("io_delay")
    assert not done.changes
    assert not done.calls
    assert done.ns < 100


def test_its_calls_become_nops(call: Caller) -> None:
    patch = PatchCaller(call)
    assert patch("io_delay").form == "nop"
    assert patch.site("io_delay").form == "nop"


def test_a_guest_ends_as_on_bare_metal() -> None:
    results = []
    for name in ("native", "vmware"):
        with Session.of_builtin("6.1-64", name, backends=BACKENDS, memory=4 << 20) as session:
            assert session.run(max_ns=400_000_000).reason == "poweroff"
            results.append(session.report().results)
    assert results[0] == results[1]


@pytest.mark.parametrize(("symbols", "wanted"), [(("vmware_platform",), {"cpu.io_delay": "_paravirt_nop"}), ((), {})])
def test_a_kernel_with_vmwares_code_skips_delays(symbols: tuple[str, ...], wanted: dict[str, str]) -> None:
    fill = BACKENDS["vmware"].kernel
    assert fill
    image = cast("KernelImage", SimpleNamespace(symbols=dict.fromkeys(symbols, 0)))
    for layout in ("6.1-64", "6.12-64"):
        assert fill.slots(image, LAYOUTS[layout], 2) == wanted
    assert fill.slots(image, LAYOUTS["7.2-64"], 2) == {}  # which has no io_delay
    assert not fill.features(image, 2)

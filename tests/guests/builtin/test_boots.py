"""Whole boots: the same results on every backend, however the guest is patched and however many CPUs there are."""

from __future__ import annotations

from functools import cache

import attrs
import pytest

from pvops_core.backends import load_backends
from pvops_core.errors import PvopsError
from pvops_core.guests import LAYOUTS, Report, Status
from pvops_core.kinds import MachineKind
from pvops_core.ops import LAYOUTS as ALL_LAYOUTS
from pvops_core.session import Session

SECOND = 1_000_000_000
BACKENDS = load_backends().backends


@attrs.frozen
class Boot:
    """What a boot came to."""

    reason: str
    report: Report
    console: str


@cache
def boot(layout: str, backend: str, cmdline: str = "", vcpus: int = 1) -> Boot:
    """A boot of the built-in guest; ``reason`` is the error's text if the run ended with one."""
    with Session.of_builtin(layout, backend, backends=BACKENDS, cmdline=cmdline, vcpus=vcpus) as session:
        try:
            reason = session.run(max_ns=10 * SECOND).reason
        except PvopsError as error:
            reason = str(error)
        return Boot(reason, session.report(), bytes(session.platform.console).decode())


def results(done: Boot) -> dict[str, object]:
    """Report and lines of console that must be the same on every backend."""
    lines = [line for line in done.console.splitlines() if line.startswith("guest: ")]
    return {
        **done.report.results,
        "console": [line for line in lines if not line.startswith("guest: platform: ")],
    }


def hosts(layout: str) -> list[str]:
    """Backends that can run a layout."""
    return [name for name, found in BACKENDS.items() if ALL_LAYOUTS[layout].kind in found.kinds]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_boots_on_bare_metal(layout: str) -> None:
    done = boot(layout, "native")
    assert done.reason == "poweroff", done.console
    assert done.report.status is Status.DONE
    assert done.report.pokes >= done.report.sites
    assert done.report.ticks >= 3
    assert done.report.page_faults > 0
    assert done.report.switches > 0
    assert "guest: hello from process 1\nguest: hello from process 2\n" in done.console


@pytest.mark.parametrize(
    ("layout", "backend"),
    [(layout, backend) for layout in LAYOUTS for backend in hosts(layout) if backend != "native"],
)
def test_results_are_those_of_bare_metal(layout: str, backend: str) -> None:
    done = boot(layout, backend)
    assert done.reason == "poweroff", done.console
    assert results(done) == results(boot(layout, "native"))


@pytest.mark.parametrize("cmdline", ["noreplace-paravirt", "noreplace-paravirt noreplace-alternatives", "sites=second"])
@pytest.mark.parametrize("layout", ["2.6.23-lapic", "6.1-64"])
def test_patching_does_not_change_results(layout: str, cmdline: str) -> None:
    done = boot(layout, "native", cmdline)
    assert results(done) == results(boot(layout, "native"))
    if "noreplace-alternatives" in cmdline:
        assert done.report.pokes == 0


@pytest.mark.parametrize("layout", ["2.6.24", "6.1-64"])
@pytest.mark.parametrize("vcpus", [2, 4])
def test_processors_count_together(layout: str, vcpus: int) -> None:
    done = boot(layout, "native", vcpus=vcpus)
    alone = boot(layout, "native")
    assert done.report.ncpus == vcpus
    assert done.report.spin_count == vcpus * alone.report.spin_count
    assert done.report.digest == alone.report.digest


def test_two_stage_patching_runs_a_half_patched_site() -> None:
    """A direct call is a byte shorter than its site: until the nop is there, that byte is executed."""
    assert boot("2.6.23-lapic", "native", "patch=two-stage").reason == "poweroff"
    done = boot("2.6.24-pae", "native", "patch=two-stage")
    assert done.reason == "crash"
    assert "guest: panic: trap" in done.console


@pytest.mark.parametrize("backend", [name for name in ("native", "xen") if name in BACKENDS])
def test_uninitialised_buffer_breaks_sites_left_alone(backend: str) -> None:
    """Only Xen's backend leaves sites alone by returning their length, so only there stack contents are poked."""
    done = boot("2.6.23-lapic-pae", backend, "patch=uninitialised")
    assert (done.reason == "poweroff") == (backend == "native")


@pytest.mark.skipif("xen" not in BACKENDS, reason="needs the Xen backend (pip install plugins/xen)")
@pytest.mark.parametrize("cmdline", ["pagetable_reserve=none", "map=early-rw"])
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if ALL_LAYOUTS[name].kind is not MachineKind.I386])
def test_spare_tables_and_early_mappings_matter_on_xen(layout: str, cmdline: str) -> None:
    done = boot(layout, "xen", cmdline)
    assert done.report.status is not Status.DONE
    assert done.reason != "poweroff"
    if cmdline == "pagetable_reserve=none":
        assert "trap 14 error" in done.console  # a write to a present page
        assert "00000003 at" in done.console

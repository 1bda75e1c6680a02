"""Small things that a newcomer meets: names mistyped, lists left empty, limits, libraries that are not there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pvops_core.backends import load_backends
from pvops_core.cli import common, main
from pvops_core.session import Session


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("boot", "KERNEL", "--memory", "32", "--stop-at", "strat_kernel"), "start_kernel"),
        (("boot", "KERNEL", "--memory", "32", "--stop-at", "machine_poweroff"), "machine_power_off"),
        (("scenario", "patch-in-plce"), "patch-in-place"),
        (("run", "--backend", "natvie"), "native"),
        (("run", "--layout", "6.1-46"), "6.1-64"),
        (("new-backend", "demo", "--with", "platfrom"), "platform"),
    ],
)
def test_a_mistyped_name_is_answered_by_the_likely_one(
    words: tuple[str, ...], meant: str, kernel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(kernel) if word == "KERNEL" else word for word in words]) == 2
    assert f"(did you mean {meant}?)" in capsys.readouterr().err


@pytest.mark.parametrize("names", ["", ",", " "])
def test_an_empty_list_of_backends_is_not_all(names: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--backends", names]) == 2
    assert "--backends names none" in capsys.readouterr().err


@pytest.mark.parametrize("memory", ["0", "1048577", "-1", "much"])
@pytest.mark.parametrize("verb", ["run", "compare", "boot"])
def test_memory_has_one_range_for_all_verbs(verb: str, memory: str, kernel: Path) -> None:
    assert main([verb, *([str(kernel)] if verb == "boot" else []), f"--memory={memory}"]) == 2


def test_what_was_not_counted_is_not_shown_as_nothing(kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["boot", str(kernel), "--memory", "32"]) == 0
    out = capsys.readouterr().out
    assert "op calls" not in out
    assert "instructions" not in out
    assert "no measure of a backend" in out


def test_a_processor_that_was_not_started_is_said_to_be_so() -> None:
    with Session.of_builtin("6.1-64", "native", backends=load_backends().backends, vcpus=2, memory=4 << 20) as session:
        stop = session.run(max_ns=1000)
        assert stop.reason == "timeout"
        assert "vcpu 1 has not been started" in stop.detail


@pytest.mark.parametrize(("backend", "layout"), [("native", "6.1-64"), ("xen", "6.1-64"), ("lguest", "2.6.24")])
def test_a_run_of_so_much_virtual_time_takes_no_more_when_idle(backend: str, layout: str) -> None:
    """The guest sleeps most of the time; slices end within a block of where they are to."""
    backends = load_backends().backends

    def digest(step: int) -> str:
        with Session.of_builtin(layout, backend, backends=backends, memory=4 << 20) as session:
            clock, before = session.machine.clock, 0
            while (stop := session.run(max_ns=step)).reason == "timeout":
                assert step <= clock.ns - before < step + 100_000, (
                    "no timer's distance more: those are milliseconds apart"
                )
                before = clock.ns
            assert stop.reason == "poweroff"
            return str(session.report().results["digest"])

    assert digest(1_000_000) == digest(10**10)


def test_a_page_takes_libraries_that_the_core_alone_has_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(common, "find_spec", lambda _name: None)
    assert main(["compare", "--html", str(tmp_path / "page.html")]) == 2
    assert "pip install 'pvops-core[report]'" in capsys.readouterr().err
    assert main(["new-backend", "demo", "--directory", str(tmp_path / "demo")]) == 2
    assert not list(tmp_path.iterdir())


def test_a_page_makes_no_folders_but_pvops_own(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    words = ("compare", "--backends", "native", "--layouts", "6.1-64", "--html", str(tmp_path / "page.html"))
    environment = {**os.environ, "HOME": str(home)}
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"):
        environment.pop(name, None)
    subprocess.run([sys.executable, "-m", "pvops_core", *words], env=environment, check=True, capture_output=True)
    assert {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_dir()} <= {
        ".cache", ".cache/pvops", ".cache/pvops/code", ".cache/pvops/matplotlib", ".cache/pvops/verdicts",
    }  # fmt: skip


@pytest.mark.kernel
def test_a_linux_without_xen_pv_is_said_to_be_one(
    kernel_path: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["boot", str(kernel_path("vmlinuz-6.1.0-50-686-pae")), "--backend", "xen"]) == 2
    assert "built without XEN_PV" in capsys.readouterr().err

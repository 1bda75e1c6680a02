"""What settings of the platforms do to the kernels that Debian ships."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pvops_core.cli import main

CLOUD = "vmlinuz-6.1.0-56-cloud-amd64"
CONSOLES = {"native": "console=ttyS0 earlyprintk=serial", "xen": "console=hvc0 earlyprintk=xen"}
Boot = Callable[..., dict[str, Any]]

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


@pytest.fixture
def boot(kernel_path: Callable[[str], Path], tmp_path: Path) -> Boot:
    def run(backend: str, *options: str) -> dict[str, Any]:
        target = tmp_path / "boot.json"
        words = ("--backend", backend, "--cmdline", CONSOLES[backend], "--max-seconds", "600", "--json", str(target))
        main(["boot", str(kernel_path(CLOUD)), *words, *options])
        found: dict[str, Any] = json.loads(target.read_text())
        return found

    return run


def test_a_kernel_for_which_xen_has_too_few_event_channels_says_so(boot: Boot) -> None:
    found = boot("xen", "--set", "event_channels=2")
    assert found["outcome"] == "crash"
    assert "kernel BUG at drivers/xen/events/events_base.c" in found["console"]
    assert found["options"] == {"event_channels": "2"}


def test_a_domain_without_a_console_ring_has_no_hvc0(boot: Boot) -> None:
    usual, without = (
        boot("xen", "--set", f"console_ring={word}", "--until", "Key type asymmetric") for word in ("yes", "no")
    )
    assert "printk: console [hvc0] enabled" in usual["console"]
    assert "printk: console [hvc0] enabled" not in without["console"]
    assert without["outcome"] == "until"


def test_a_pc_tells_the_date_that_it_was_given(boot: Boot) -> None:
    found = boot("native", "--set", "rtc=1700000000", "--until", "(1700000000)")
    assert "setting system clock to 2023-11-14T22:13:20 UTC" in found["console"]


@pytest.mark.parametrize(
    ("backend", "model"), [("native", "min,-tsc"), ("native", "x86-64-v1"), ("xen", "min"), ("xen", "x86-64-v2,-nx")]
)
def test_a_kernel_starts_on_a_lesser_processor(boot: Boot, backend: str, model: str) -> None:
    found = boot(backend, "--set", f"cpu={model}", "--until", "Key type asymmetric")
    assert found["outcome"] == "until", found["reason"]

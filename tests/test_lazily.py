"""Packages import their modules late, and say no as any module does."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from pvops_core.lazily import later

PACKAGES = (
    "pvops_core.backends",
    "pvops_core.images",
    "pvops_core.machine",
    "pvops_core.session",
    "pvops_core.switchboard",
)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_that_a_package_says_it_has_is_there(package: str) -> None:
    module = import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is getattr(module, name)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing


def test_what_stands_for_a_module_is_as_the_module() -> None:
    found = later("fractions")
    assert found.Fraction is import_module("fractions").Fraction
    assert vars(found)["Fraction"] is found.Fraction
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = found.nothing


def test_a_worker_that_disassembles_nothing_has_no_disassembler() -> None:
    told = "import sys, pvops_core.runs.worker.observe; print('capstone' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", told], check=True, capture_output=True).stdout == b"False\n"


def test_a_boots_command_reads_no_image_and_makes_no_machine() -> None:
    modules = "pvops_core.cli.boot, pvops_core.cli.options.keyboard, pvops_core.runs.wire, pvops_core.runs.observation"
    heavy = {"numpy", "unicorn", "llvmlite", "elftools", "capstone"}
    code = f"import sys, {modules}; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

"""``pvops boot`` looking inside a kernel: what it prints, writes and exits with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pvops_core.cli import main
from tests.boot.selfpatching import SelfPatching


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A kernel that patches none of its two sites."""
    path = tmp_path / "vmlinux"
    path.write_bytes(SelfPatching.of("mmu.write_cr3", "mmu.read_cr3").build().data)
    return path


def test_differences_in_patching_are_shown_and_make_the_exit_code(
    kernel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PVOPS_ORACLE", raising=False)
    target = tmp_path / "boot.json"
    assert main(["boot", str(kernel), "--memory", "32", "--verify-patching", "--json", str(target)]) == 5
    shown = capsys.readouterr().out
    assert "patching            2 sites, 4 differences" in shown
    assert "mmu.write_cr3" in shown
    assert "call qword ptr [rip" in shown
    patching = json.loads(target.read_text())["inside"]["patching"]
    assert [difference["step"] for difference in patching["differences"]] == ["paravirt", "paravirt", "final", "final"]


def test_a_kernel_that_never_came_to_patching_is_not_equal(kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["boot", str(kernel), "--memory", "32", "--verify-patching", "--stop-at", "start_kernel"]) == 5
    assert "did not come to the end of: paravirt, final" in capsys.readouterr().out


def test_a_kernel_without_sites_cannot_be_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(SelfPatching.of().build().data)
    assert main(["boot", str(path), "--memory", "32", "--verify-patching"]) == 2
    assert ".parainstructions" in capsys.readouterr().err


def test_a_damaged_record_is_named(
    kernel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.json").write_text("{")
    monkeypatch.setenv("PVOPS_ORACLE", str(tmp_path))
    assert main(["boot", str(kernel), "--memory", "32", "--verify-patching"]) == 2
    assert "bad.json" in capsys.readouterr().err

"""``pvops boot`` looking inside a kernel: what it prints, writes and exits with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pvops_core.cli import main
from tests.session.selfpatching import SelfPatching


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


HOOK = """
def note(cpu, cr3):
    print("seen", hex(cr3))

def broken(cpu):
    raise LookupError("no such luck")

def strange(cpu, colour):
    pass

number = 5
"""


@pytest.fixture
def calling(tmp_path: Path) -> Path:
    """A kernel that calls its two sites; its folder has a module of hooks."""
    path = tmp_path / "vmlinux"
    path.write_bytes(SelfPatching.of("mmu.write_cr3", "mmu.read_cr3").build(body=(0, 1, 0)).data)
    (tmp_path / "hooks.py").write_text(HOOK)
    return path


@pytest.mark.parametrize(
    ("place", "calls"), [("", 2), ("@patched", 2), ("@machine_power_off", 0), ("@..patched", 0), ("@patched..init", 2)]
)
def test_a_hook_is_put_in_and_what_came_of_it_is_shown(
    calling: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, calls: int
) -> None:
    target, hook = tmp_path / "boot.json", f"{calling.parent}/hooks.py:note"
    code = main(["boot", str(calling), "--memory", "32", "--json", str(target), "--hook", f"write_cr3={hook}{place}"])
    if place.endswith("init"):
        assert code == 2
        assert "no symbol 'run_init_process'" in capsys.readouterr().err
        return
    assert code == 0
    assert f"on write_cr3: {calls} calls, 0 in place of" in capsys.readouterr().out
    (found,) = json.loads(target.read_text())["inside"]["hooks"]
    assert (found["op"], found["function"], found["calls"]) == ("write_cr3", hook, calls)
    assert found["standing"] == (place != "@..patched")
    assert found["originals"] == ["native_write_cr3"]


@pytest.mark.parametrize(
    ("hook", "code", "message"),
    [
        ("write_cr3", 2, "is not OP=MODULE:FUNCTION"),
        ("write_cr3={}/hooks.py", 2, "is not OP=MODULE:FUNCTION"),
        ("write_cr9={}/hooks.py:note", 2, "no op 'write_cr9' (did you mean write_cr"),
        ("mmu.write_cr9={}/hooks.py:note", 2, "no op path 'mmu.write_cr9' (did you mean mmu.write_cr"),
        ("arch_setup={}/hooks.py:note", 2, "no op 'arch_setup'"),
        ("write_cr3={}/hooks.py:nothing", 4, "has no 'nothing'"),
        ("write_cr3={}/elsewhere.py:note", 4, "elsewhere.py"),
        ("write_cr3=no_such_module:note", 4, "no_such_module"),
        ("write_cr3={}/hooks.py:number", 2, "is not callable"),
        ("write_cr3={}/hooks.py:strange", 4, "takes 'colour'"),
        ("write_cr3={}/hooks.py:broken", 4, "broken raised LookupError: no such luck"),
        ("write_cr3={}/hooks.py:note@nowhere", 2, "no symbol 'nowhere'"),
        ("write_cr3={}/hooks.py:note@patched..nowhere@0x10", 2, "no symbol 'nowhere@0x10'"),
    ],
)
def test_a_hook_that_cannot_be_or_fails_is_named(
    calling: Path, capsys: pytest.CaptureFixture[str], hook: str, code: int, message: str
) -> None:
    assert main(["boot", str(calling), "--memory", "32", "--hook", hook.format(calling.parent)]) == code
    captured = capsys.readouterr()
    assert message in captured.out + captured.err


def test_a_kernel_without_ops_has_none_to_hook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(SelfPatching.of().build().data)
    (tmp_path / "hooks.py").write_text(HOOK)
    assert main(["boot", str(kernel), "--memory", "32", "--hook", f"write_cr3={tmp_path}/hooks.py:note"]) == 2
    assert "no call of an op is annotated in this kernel" in capsys.readouterr().err


def test_a_trace_is_shown_in_tables(calling: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "boot.json"
    assert main(["boot", str(calling), "--memory", "32", "--trace", "ops", "--json", str(target)]) == 0
    shown = capsys.readouterr().out.splitlines()
    head = next(line for line in shown if line.startswith("op ") and "count" in line)
    assert head.split() == ["op", "count", "virtual", "us"]
    assert any(line.split()[:2] == ["mmu.write_cr3", "2"] for line in shown)
    trace = json.loads(target.read_text())["inside"]["trace"]
    assert trace["ops"]["mmu.read_cr3"]["count"] == 1
    assert len(trace["sites"]) == 2
    assert main(["boot", str(calling), "--memory", "32", "--trace", "everything"]) == 2
    assert "--trace takes ops" in capsys.readouterr().err

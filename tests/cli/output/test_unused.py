"""Ops without effect, as a user is told of them: by run, compare and backends --check."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pvops_core.cli import main
from tests.session.selfpatching import SelfPatching

OWN = """
from pvops_core.backends import API, Backend
from pvops_core.hookspecs import hookimpl

class Ops:
    def __init__(self, env): ...

    @hookimpl
    def write_cr3(self, cpu, cr3):
        cpu.insn.mov_to_cr(3, cr3)

    def wbinvd(self, cpu): ...

backend = Backend(name="own", api=API, base="native", ops=Ops)
"""
TOLD = "write_cr3 is yours, but 3 of 3 sites are inlined over it by ALTERNATIVE !XENPV; declare forces="
NOTE = "hook wbinvd: its ops have a method of this name that is not marked @hookimpl"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    return file


def test_run(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "json"
    arguments = ["--backend", "own", "--layout", "6.1-64", "--plugin", str(own), "--json", str(target)]
    assert main(["run", *arguments]) == 0
    printed = capsys.readouterr()
    assert f"unused              {TOLD}" in printed.out
    assert "own                 1 (write_cr3 1)\n" in printed.out
    assert NOTE in printed.err
    document = json.loads(target.read_text())
    assert document["counts"]["own"] == {"write_cr3": 1}
    fate = document["own"].pop("write_cr3")
    assert not document["own"]
    assert fate.pop("told").startswith(TOLD)
    over = {"ALTERNATIVE !XENPV": 3}
    assert fate == {"becomes": "lost", "calls": 1, "sites": 3, "inlined": 0, "over": over}


def test_compare(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--backends", "native,own", "--layouts", "6.1-64", "--plugin", str(own)]
    assert main(["compare", *arguments]) == 0
    printed = capsys.readouterr().out
    assert printed.count("is yours, but") == 1
    assert f"own: {TOLD}" in printed


def test_check(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "json"
    assert main(["backends", "--check", "--plugin", str(own), "--json", str(target)]) == 0
    printed = capsys.readouterr().err
    assert NOTE in printed
    assert TOLD in printed
    notes = json.loads(target.read_text())["notes"]
    assert [note["hook"] for note in notes] == ["wbinvd", "write_cr3", "write_cr3"]
    assert {note["distribution"] for note in notes} == {str(own)}
    assert notes[1]["message"].endswith("(6.1-64)")
    assert notes[2]["message"].endswith("(2.6.23-lapic, 2.6.23-lapic-pae, 2.6.24, 2.6.24-pae)")


def test_boot(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A hook of an op that the kernel's table has not got."""
    own.write_text(OWN.replace("def wbinvd(self, cpu): ...", "@hookimpl\n    def read_tsc(self, cpu): return 0"))
    kernel, target = tmp_path / "vmlinux", tmp_path / "json"
    kernel.write_bytes(SelfPatching.of("mmu.read_cr3").build(body=(0,)).data)
    words = [str(kernel), "--memory", "32", "--backend", "own", "--plugin", str(own), "--json", str(target)]
    assert main(["boot", *words, "--ops", "write_cr3"]) == 0
    assert "no ops of this kernel, so that own's hooks are not called: read_tsc\n" in capsys.readouterr().out
    assert json.loads(target.read_text())["inside"]["ops"]["unknown"] == ["read_tsc"]
    assert main(["boot", str(kernel), "--memory", "32", "--ops"]) == 0
    assert "no ops of this kernel" not in capsys.readouterr().out


def test_a_boot_that_a_hook_ended_gives_no_advice(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = "@hookimpl\n    def read_tsc(self, cpu): return 0\n\n    @hookimpl\n    def read_cr2(self, cpu): return 0"
    own.write_text(OWN.replace("def wbinvd(self, cpu): ...", more).replace("cpu.insn.mov_to_cr(3, cr3)", "1 / 0"))
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(SelfPatching.of("mmu.write_cr3").build(body=(0,)).data)
    words = ["boot", str(kernel), "--memory", "32", "--backend", "own", "--plugin", str(own), "--ops", "write_cr3"]
    assert main(words) == 4
    out = capsys.readouterr().out
    assert "own.write_cr3 raised ZeroDivisionError" in out
    assert "unused" not in out
    assert "are not called" not in out
    own.write_text(own.read_text().replace("1 / 0", "cpu.insn.mov_to_cr(3, cpu.cr3)"))
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "unused              hooks of own in Python: 1 (mmu.read_cr2);" in out
    assert "hooks are not called: read_tsc" in out


def test_what_helps_is_not_told(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own.write_text(OWN.replace("ops=Ops", "ops=Ops, forces=frozenset({'XENPV'})"))
    assert main(["run", "--backend", "own", "--layout", "6.1-64", "--plugin", str(own)]) == 0
    printed = capsys.readouterr().out
    assert "unused" not in printed
    assert "own                 15 (write_cr3 15)\n" in printed


def test_of_a_run_that_failed_nothing_is_told(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it would have called nobody knows."""
    own.write_text(OWN.replace("def wbinvd(self, cpu): ...", "@hookimpl\n    def load_tr_desc(self, cpu): 1 / 0"))
    assert main(["run", "--backend", "own", "--plugin", str(own), "--layout", "6.1-64"]) == 4
    assert main(["compare", "--backends", "native,own", "--plugin", str(own), "--layouts", "6.1-64"]) == 4
    printed = capsys.readouterr().out
    assert "ZeroDivisionError" in printed
    assert "is yours, but" not in printed

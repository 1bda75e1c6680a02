"""``pvops compare`` on the built-in guest, with sound backends and with backends that go wrong in every way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pvops_core.cli import main

LAYOUT = "2.6.23-lapic-pae"
PLUGIN = """
import os
from pvops_core.errors import UsageError
from pvops_core.backends import API, Backend
from pvops_core.hookspecs import hookimpl
from pvops_core.kinds import MachineKind

class Ops:
    def __init__(self, env):
        {init}

    @hookimpl
    def read_cr0(self, cpu):
        {read_cr0}
        return cpu.insn.mov_from_cr(0)

backend = Backend(
    name="{name}", api=API, description="A backend for a test.", base="native", ops=Ops,
    kinds=frozenset({{MachineKind.PAE}}),
)
"""


def plugin(folder: Path, name: str, *, init: str = "pass", read_cr0: str = "pass") -> str:
    """A backend that is native but for what it does when it is made and when it is asked for CR0."""
    path = folder / f"{name}.py"
    path.write_text(PLUGIN.format(name=name, init=init, read_cr0=read_cr0))
    return str(path)


def compare(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the document."""
    target = folder / "out.json"
    code = main(["compare", "--layouts", LAYOUT, "--json", str(target), *arguments])
    document: dict[str, Any] = json.loads(target.read_text())
    assert document["schema"] == "pvops.compare/1"
    assert document["exit_code"] == code
    return code, document


def test_backends_give_equal_results_at_different_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    html = tmp_path / "report.html"
    code, document = compare(tmp_path, "--backends", "native,xen", "--html", str(html), "--seed", "3")
    printed = capsys.readouterr()
    assert code == 0, printed.out
    assert document["equal"] is True
    (group,) = document["groups"]
    assert (group["reference"], group["backends"], group["differences"]) == ("native", ["native", "xen"], [])
    native, xen = document["cells"]
    assert native["results"] == xen["results"]
    assert int(native["results"]["results"]) > 50
    assert native["results"]["status"] == "done"
    assert sum(native["sites"].values()) == sum(xen["sites"].values()) > 100
    assert native["counts"]["hypercalls"] == {}
    assert xen["counts"]["hypercalls"]["mmu_update"] > 0
    assert native["text_sha256"] != xen["text_sha256"]
    assert native["instructions"] > 100_000
    assert xen["versions"].keys() >= {"python", "unicorn", "capstone", "pvops-core", "pvops-xen", "pvops-native"}
    assert document["command"] == (
        f"pvops compare --backends native,xen --layouts {LAYOUT} --cpus 1 --seed 3 --memory 16"
    )
    assert "Results are equal in the one group, over 2 runs." in printed.out
    assert "mmu_update" in html.read_text()


def test_a_backend_that_answers_wrongly_is_found_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = plugin(tmp_path, "wrong", read_cr0="return cpu.insn.mov_from_cr(0) & ~8")
    code, document = compare(tmp_path, "--backends", "native,wrong", "--plugin", wrong)
    assert code == 5
    fields = [difference["field"] for difference in document["groups"][0]["differences"]]
    assert fields == ["results.digest", "console"]
    native, other = document["cells"]
    out = capsys.readouterr().out
    assert f"results.digest: native has {native['results']['digest']}, wrong has {other['results']['digest']}" in out
    assert "DIFFERENT" in out


def test_each_bad_end_is_its_cells_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ends = {
        "aborts": plugin(tmp_path, "aborts", read_cr0="os.abort()"),
        "raises": plugin(tmp_path, "raises", init="raise ValueError('no luck')"),
        "exits": plugin(tmp_path, "exits", init="raise SystemExit(0)"),
        "fails": plugin(tmp_path, "fails", read_cr0="[][cpu]"),
        "crashes": plugin(tmp_path, "crashes", read_cr0="cpu.machine.stop('crash', 'on purpose')"),
    }
    given = [word for path in ends.values() for word in ("--plugin", path)]
    code, document = compare(tmp_path, "--backends", ",".join(["native", *ends]), *given)
    assert code == 4
    outcomes = {cell["backend"]: cell["outcome"] for cell in document["cells"]}
    assert outcomes == {
        "native": "poweroff",
        "aborts": "died",
        "raises": "error",
        "exits": "error",
        "fails": "error",
        "crashes": "crash",
    }
    reasons = {cell["backend"]: cell["reason"] for cell in document["cells"]}
    assert "SIGABRT while running the guest" in reasons["aborts"]
    assert "no luck" in reasons["raises"]
    assert "hook read_cr0" in reasons["fails"]
    assert "on purpose" in reasons["crashes"]
    details = {cell["backend"]: cell["detail"] for cell in document["cells"]}
    assert "in read_cr0" in details["fails"]
    consoles = {cell["backend"]: cell["console"] for cell in document["cells"]}
    assert all(consoles[name].startswith(f"guest: {LAYOUT} starts") for name in ("aborts", "fails", "crashes"))
    assert "5 of 6 runs did not finish." in capsys.readouterr().out


def test_a_guest_without_end_is_given_up(tmp_path: Path) -> None:
    hangs = plugin(tmp_path, "hangs", read_cr0="while True: pass")
    code, document = compare(tmp_path, "--backends", "hangs", "--plugin", hangs, "--max-seconds", "2")
    assert code == 6
    (cell,) = document["cells"]
    assert cell["outcome"] == "timeout"
    assert cell["reason"].startswith("no end after 2 s of wall time, while running the guest, in hangs.read_cr0 (")
    assert cell["detail"].endswith("in read_cr0")


def test_a_broken_plugin_is_told_of_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("raise SystemExit(77)")
    code, document = compare(tmp_path, "--backends", "native", "--plugin", str(bad))
    assert code == 4
    assert [cell["outcome"] for cell in document["cells"]] == ["poweroff"]
    (error,) = document["plugin_errors"]
    assert error["distribution"] == str(bad)
    assert "broken plugin" in capsys.readouterr().err


def test_a_backend_that_cannot_be_the_machine_is_left_out(tmp_path: Path) -> None:
    code, document = compare(tmp_path, "--backends", "lguest")
    assert code == 3
    assert document["cells"] == []
    assert document["skipped"] == [
        {"backend": "lguest", "layout": LAYOUT, "reason": "lguest is no pae machine"},
    ]


def test_a_backend_that_cannot_have_so_many_cpus_is_left_out(tmp_path: Path) -> None:
    one_only = plugin(tmp_path, "single", init="if len(env.machine.vcpus) > 1: raise UsageError('one vCPU, no more')")
    code, document = compare(tmp_path, "--backends", "single", "--plugin", one_only, "--cpus", "2")
    assert code == 3
    assert document["skipped"] == [{"backend": "single", "layout": LAYOUT, "reason": "one vCPU, no more"}]
    assert main(["run", "--backend", "single", "--plugin", one_only, "--cpus", "2"]) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--backends", "native,vmi"], "no backend 'vmi'; there are"),
        (["--layouts", "2.4"], "no layout '2.4'; there are"),
        (["--kinds", "vax"], "no machine kind 'vax'; there are i386, pae, x86_64"),
        (["--cpus", "0"], "cpus"),
        (["--seed", "-1"], "seed"),
        (["--jobs", "0"], "jobs"),
        (["--memory", "lots"], "memory"),
        (["--max-seconds", "0"], "max-seconds"),
        (["--no-such"], "no-such"),
        (["--html", "/no/such/report.html"], "/no/such/report.html: its folder does not exist"),
        (["--json", "/no/such/report.json"], "/no/such/report.json: its folder does not exist"),
        (["--initrd", "x"], "--initrd goes with --kernel only"),
        (["--phases", "user"], "--phases goes with --kernel only"),
        (["--ops", "save_fl"], "--ops goes with --kernel only"),
        (["--instructions"], "--instructions goes with --kernel only"),
        (["--kernel", "/no/such", "--layouts", "6.1-64"], "--layouts goes with the built-in guest only"),
        (["--kernel", "/no/such", "--phases", "late"], "no phase 'late'; there are entry, setup"),
        (["--kernel", "/no/such"], "/no/such: cannot be read"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_json_on_standard_output_is_all_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--backends", "lguest", "--layouts", LAYOUT, "--json", "-"]) == 3
    assert json.loads(capsys.readouterr().out)["verdict"] == "Nothing ran."

"""The conformance suite: it passes what is sound, it catches what is planted, and its verdicts say which is which."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.testing import planted, plantedtable

pytest_plugins = ["pytester"]

PLANTED = Path(planted.__file__)
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "planted-bugs.md"
SUITE = ("--pyargs", "pvops_core.testing.conformance")


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\n")
    return pytester


def verdict(result: pytest.RunResult, op: str) -> str:
    lines = [line.split() for line in result.outlines if line.startswith(f"{op} ")]
    return lines[-1][1] if lines else ""


@pytest.mark.parametrize("name", planted.BUGS, ids=lambda name: f"{name}-{planted.BUGS[name][0]}")
def test_every_planted_bug_is_caught_and_said_as_the_page_says(suite: pytest.Pytester, name: str) -> None:
    op, what = planted.BUGS[name]
    result = suite.runpytest_inprocess(*plantedtable.words(name))
    seen = plantedtable.First()
    for report in result.reprec.getreports("pytest_runtest_logreport"):  # type: ignore[attr-defined]
        seen.pytest_runtest_logreport(report)
    assert seen.test, what
    assert plantedtable.row(name, seen.test, seen.says) in PAGE.read_text(encoding="utf-8"), "run make reference"
    if op not in planted.ONLY_WHOLE:
        assert verdict(result, op) in {"FAILURE", "CRASH"}, what
        assert "  the hook:  " in result.stdout.str() or seen.test != "test_law"


def test_the_page_of_planted_bugs_has_these_and_no_others() -> None:
    rows = [line.split(" | ")[:2] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert [(op.strip("|` "), what) for op, what in rows] == list(planted.BUGS.values())
    assert PAGE.read_text(encoding="utf-8").startswith(plantedtable.HEAD)


@pytest.mark.parametrize("backend", ["native", "xen", "lguest"])
def test_first_party_backends_pass(suite: pytest.Pytester, backend: str, tmp_path: Path) -> None:
    """All of it is much; here what each kind of test says of a few ops."""
    ops, ktap = "save_fl,irq_disable,write_cr3,pgd_val,pagetable_reserve,patch,set_pte,alloc_p4d", tmp_path / "ktap"
    options = ("--pvops-backend", backend, "--pvops-ops", ops, "--pvops-ktap", str(ktap))
    result = suite.runpytest_inprocess("-q", *options, *SUITE)
    assert not result.parseoutcomes().get("failed")
    assert verdict(result, "write_cr3") == "SUCCESS"
    lines = ktap.read_text().splitlines()
    assert lines[:2] == ["KTAP version 1", f"1..{len(lines) - 2}"]
    assert f"ok {[line.split()[2] for line in lines[2:]].index('write_cr3') + 1} write_cr3" in lines


def test_smoke_tries_what_the_backend_itself_has(suite: pytest.Pytester) -> None:
    result = suite.runpytest_inprocess(
        "-q", "--pvops-plugin", f"{PLANTED}:bug0", "--pvops-backend", "bug0", "--pvops-smoke", "--collect-only", *SUITE
    )
    tried = {line.partition("[")[2].partition("-")[0] for line in result.outlines if "test_law[" in line}
    assert tried == {"save_fl"}
    assert any("test_whole_guest" in line for line in result.outlines)


def test_a_guest_that_does_not_boot_is_still_a_failure_of_what_the_law_does_not_see(suite: pytest.Pytester) -> None:
    """The law of another op holds; the backend's bug is told all the same, as a crash."""
    options = ("--pvops-plugin", f"{PLANTED}:bug9", "--pvops-backend", "bug9", "--pvops-layouts", "6.1-64")
    result = suite.runpytest_inprocess("-q", *options, "--pvops-ops", "read_cr2,write_gdt_entry", "-k", "law", *SUITE)
    assert verdict(result, "read_cr2") == "CRASH"
    assert verdict(result, "write_gdt_entry") == "FAILURE"
    said = result.stdout.str()
    assert "  its boot:  the guest did not come to irq_init: crash triple fault on vcpu 0" in said
    assert "the guest did not come to irq_init: crash triple fault on vcpu 0" in said.partition("verdicts")[2]


def test_a_crash_is_told_from_a_failure(suite: pytest.Pytester) -> None:
    verdicts = {}
    for name, (op, what) in planted.BUGS.items():
        if "exception" in what or "DF" in what:
            options = ("--pvops-plugin", f"{PLANTED}:{name}", "--pvops-backend", name, "--pvops-ops", op)
            result = suite.runpytest_inprocess("-q", *options, "-k", "test_law or convention", *SUITE)
            verdicts[op] = verdict(result, op)
    assert verdicts == {"set_fixmap": "CRASH", "io_delay": "FAILURE"}

"""``pvops boot`` of several images: small ones that say how it went, and all that can go wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from pvops_core.cli import main
from pvops_core.testing.assembly import assemble
from pvops_core.testing.images import ElfBuilder

OFF = "mov dx, 0x604; mov ax, 0x2000; out dx, ax; hlt"


def guest(path: Path, text: str, end: str = OFF) -> None:
    """A kernel that prints a text at the first serial port."""
    says = "".join(f"mov al, {letter}; out dx, al; " for letter in text.encode())
    builder = ElfBuilder(64, 0x1000000)
    builder.symbol("start", builder.text(".text", assemble(f"mov dx, 0x3f8; {says}{end}", 64)))
    path.write_bytes(builder.build())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    where = tmp_path / "guests"
    where.mkdir()
    guest(where / "good", "Test result: SUCCESS\n")
    guest(where / "skipped", "Skip: no y\nTest result: SKIP\n")
    return where


def boot(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    target = folder.parent / "result.json"
    code = main(["boot", str(folder), "--memory", "32", "--json", str(target), *words])
    document: dict[str, Any] = json.loads(target.read_text())
    return code, document


def test_one_result_each(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = folder.parent / "report.xml"
    code, document = boot(folder, "--junit", str(report), "--jobs", "1")
    assert capsys.readouterr().out.splitlines()[-1] == "2 runs: 1 SUCCESS, 1 SKIP"
    assert (code, document["schema"], document["exit_code"]) == (0, "pvops.boots/1", 0)
    assert [(run["name"], run["verdict"], run["why"]) for run in document["runs"]] == [
        ("good", "SUCCESS", []),
        ("skipped", "SKIP", ["no y"]),
    ]
    assert document["runs"][0]["console"] == "Test result: SUCCESS\n"
    assert ET.fromstring(report.read_bytes()).attrib["tests"] == "2"


def test_the_worst_decides(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guest(folder / "bad", "Fail: a\nFail: b\nFail: c\nFail: d\nTest result: FAILURE\n")
    code, document = boot(folder)
    assert (code, document["summary"]["FAILURE"]) == (5, 1)
    guest(folder / "silent", "hello\n")
    guest(folder / "fallen", "Test result: SUCCESS\n", "ud2")
    code, document = boot(folder)
    assert code == 6
    assert {run["name"]: run["verdict"] for run in document["runs"]} == {
        "bad": "FAILURE",
        "fallen": "CRASH",
        "good": "SUCCESS",
        "silent": "CRASH",
        "skipped": "SKIP",
    }
    shown = capsys.readouterr().out
    assert "FAILURE bad" in shown
    assert "        c\n        and 1 more\n" in shown
    assert "5 runs: 1 SUCCESS, 1 SKIP, 1 FAILURE, 2 CRASH" in shown


def test_a_crash_that_is_expected_is_no_failure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guest(folder / "fallen", "", "ud2")
    (folder / "fallen.toml").write_text("expect = 'CRASH'\n")
    code, document = boot(folder)
    assert (code, document["exit_code"], document["summary"]["CRASH"]) == (0, 0, 1)
    assert [(run["expected"], run["as_expected"]) for run in document["runs"]] == [
        ("CRASH", True), (None, None), (None, None),
    ]  # fmt: skip
    shown = capsys.readouterr().out
    assert "s  as expected\n" in shown
    assert "3 runs: 1 SUCCESS, 1 SKIP, 1 CRASH (1 as expected)" in shown
    (folder / "good.toml").write_text("expect = 'CRASH'\n")
    code, document = boot(folder)
    assert code == 5
    assert document["runs"][1]["why"] == ["CRASH was expected"]
    assert "1 SUCCESS (1 not as expected)" in capsys.readouterr().out


def test_what_stands_beside_an_image_goes_before_the_command_line(folder: Path) -> None:
    (folder / "good.toml").write_text("cmdline = 'mine'\ncpus = 2\nmemory = 48\n[set]\ncpu = 'x86-64-v2'\n")
    (folder / "good~more.toml").write_text("seed = 9\n")
    code, document = boot(folder, "--cmdline", "all", "--seed", "3", "--set", "cpu=x86-64-v1")
    assert code == 0
    found = {
        run["name"]: (run["workload"], run["vcpus"], run["memory"] >> 20, run["seed"], run["options"])
        for run in document["runs"]
    }
    assert found == {
        "good": ("mine", 2, 48, 3, {"cpu": "x86-64-v2"}),
        "good~more": ("all", 1, 32, 9, {"cpu": "x86-64-v1"}),
        "skipped": ("all", 1, 32, 3, {"cpu": "x86-64-v1"}),
    }


def test_one_that_cannot_be_run_is_told_of_among_the_others(folder: Path) -> None:
    (folder / "good.toml").write_text("[set]\nlovely = 1\n")
    code, document = boot(folder)
    assert code == 2
    assert document["runs"][0]["verdict"] == "ERROR"
    assert "lovely" in document["runs"][0]["why"][0]
    assert document["runs"][1]["verdict"] == "SKIP"


def test_one_image_with_a_report_is_one_of_several(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = folder.parent / "report.xml"
    assert main(["boot", str(folder / "good"), "--memory", "32", "--junit", str(report)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 run: 1 SUCCESS"
    assert report.exists()


def test_json_may_go_to_standard_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["boot", str(folder), "--memory", "32", "--only", "g*", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["summary"]["SUCCESS"] == 1
    assert "1 run: 1 SUCCESS" in err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--only", "nobody*"], 2, "no kernel images in "),
        (["--trace", "ops"], 2, "--trace goes with one image only"),
        (["--verify-patching"], 2, "--verify-patching goes with one image only"),
        (["--input", "-"], 2, "--input goes with one image only"),
        (["--events", "events"], 2, "--events goes with one image only"),
        (["--junit", "/nowhere/report.xml"], 2, "its folder does not exist"),
        (["/nowhere/kernel"], 2, "/nowhere/kernel"),
    ],
)
def test_wrong_usage_is_one_line(
    folder: Path, words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["boot", str(folder), *words]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_wrong_file_beside_an_image_is_refused_before_anything_runs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "good.toml").write_text("vcpus = 2\n")
    assert main(["boot", str(folder)]) == 2
    assert "good.toml: no key 'vcpus'" in capsys.readouterr().err

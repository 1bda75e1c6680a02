"""``pvops livepatch`` from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pvops_core.cli import main
from tests.payloads import quiet_payload

EXAMPLES = Path(__file__).parents[2] / "pvops_core" / "livepatch" / "examples"
needs_cc = pytest.mark.skipif(not (shutil.which("cc") and shutil.which("ld")), reason="needs cc and ld")


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    """``report`` of the 6.1 guest becomes a function that does nothing."""
    return quiet_payload(tmp_path)


def test_timed_actions(payload: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "script"
    script.write_text(f"300us load {payload}\n+1us list\n")
    result = tmp_path / "result.json"
    assert main(["livepatch", "run", str(script), "--cpus", "2", "--json", str(result)]) == 0
    out = capsys.readouterr().out
    assert "Applying quiet... completed" in out
    assert "quiet                                   | APPLIED" in out
    assert "digest" not in out, "the guest's report is gone"
    document = json.loads(result.read_text())
    assert document["schema"] == "pvops.livepatch/1"
    assert [each["exit"] for each in document["commands"]] == [0, 0]
    assert document["outcome"] == "poweroff"
    first = document["event_log_sha256"]
    main(["livepatch", "run", str(script), "--cpus", "2", "--json", str(result)])
    assert json.loads(result.read_text())["event_log_sha256"] == first


@pytest.mark.parametrize(("line", "code"), [("apply nobody", 1), ("list", 0)])
def test_exit_codes(line: str, code: int, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(f"300us {line}\n")
    assert main(["livepatch", "run", str(script)]) == code


def test_bad_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "script"
    script.write_text("soon apply x\n")
    assert main(["livepatch", "run", str(script)]) == 2
    assert "script:1" in capsys.readouterr().err
    assert main(["livepatch", "run", str(tmp_path / "none")]) == 2
    assert main(["livepatch", "show", str(script)]) == 2
    assert main(["livepatch", "build", str(tmp_path / "none.c"), "-o", str(tmp_path / "out")]) == 2


@pytest.mark.parametrize("wrong", [["--backend", "nobody"], ["--set", "nothing=1"]])
def test_what_is_typed_is_read_when_all_else_is_right(
    wrong: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pvops_core.cli.livepatch.read_file", lambda name: pytest.fail(f"{name} is read"))
    assert main(["livepatch", "run", "-", *wrong]) == 2
    assert wrong[1].split("=")[0] in capsys.readouterr().err


def test_show(payload: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["livepatch", "show", str(payload)]) == 0
    assert ".livepatch.funcs" in capsys.readouterr().out


def test_without_a_compiler_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert main(["livepatch", "build", str(EXAMPLES / "hello.c"), "-o", str(tmp_path / "out")]) == 2
    assert "no-such-compiler is not installed" in capsys.readouterr().err


@needs_cc
@pytest.mark.parametrize("layout", ["6.1-64", "2.6.24"])
def test_built_from_c(layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "hello.livepatch"
    build = ["livepatch", "build", str(EXAMPLES / "hello.c"), "-o", str(out), "--function", "report"]
    assert main([*build, "--layout", layout]) == 0
    script = tmp_path / "script"
    script.write_text(f"300us load {out}\n")
    assert main(["livepatch", "run", str(script), "--layout", layout]) == 0
    text = capsys.readouterr().out
    assert text.index("hello is being applied") < text.index("guest: platform: Hello World")


@needs_cc
def test_a_source_that_does_not_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "bad.c", tmp_path / "out"
    source.write_text("int x = ;\n")
    assert main(["livepatch", "build", str(source), "-o", str(out)]) == 2
    source.write_text("int y;\n")
    assert main(["livepatch", "build", str(source), "-o", str(out), "--function", "report"]) == 2
    assert "defines no function new_report" in capsys.readouterr().err
    assert main(["livepatch", "build", str(source), "-o", str(out), "--function", "nobody"]) == 2
    assert not out.exists()

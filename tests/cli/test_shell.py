"""``pvops shell``: scripts through a pipe, and where the guest stands before they begin."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from pvops_core.cli import main


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard input."""
    text = io.StringIO()
    monkeypatch.setattr("sys.stdin", text)
    return text


def script(typed: io.StringIO, text: str) -> None:
    typed.seek(0)
    typed.truncate()
    typed.write(text)
    typed.seek(0)


def test_a_script_runs_on_a_kernel(kernel: Path, typed: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    script(typed, "print(where(), len(vcpus))\nprint(run().reason)\nraise SystemExit(3)")
    words = ["--memory", "32", "--cpus", "2", "--stop-at", "alternative_instructions"]
    assert main(["shell", str(kernel), *words]) == 3
    out = capsys.readouterr().out
    assert "vcpu 0 at alternative_instructions+0x0" in out
    assert "2\n" in out
    assert out.endswith("poweroff\n")


def test_a_saved_boot_goes_on(
    kernel: Path, typed: io.StringIO, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "saved"
    script(typed, f"save({str(saved)!r})")
    assert main(["shell", str(kernel), "--memory", "32", "--stop-at", "alternative_instructions"]) == 0
    script(typed, "print(where())")
    assert main(["shell", "--load", str(saved)]) == 0
    assert "vcpu 0 at alternative_instructions+0x0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "text", "told"),
    [
        (["KERNEL"], 'read("nowhere")', "no symbol 'nowhere'"),
        (["KERNEL", "--stop-at", "nowhere"], "", "nowhere"),
        (["KERNEL", "--backend", "nobody"], "", "nobody"),
        (["KERNEL", "--set", "colour=1"], "", "colour"),
        ([], "", "give a KERNEL to boot, or --load FILE"),
        (["--load", "nowhere"], "", "cannot be read"),
        (["--load", "nowhere", "--cpus", "2"], "", "--cpus cannot be given with it"),
        (["nowhere"], "", "nowhere"),
    ],
)
def test_what_cannot_be_is_a_line_and_no_traceback(
    kernel: Path, typed: io.StringIO, capsys: pytest.CaptureFixture[str], words: list[str], text: str, told: str
) -> None:
    script(typed, text)
    assert main(["shell", *(str(kernel) if each == "KERNEL" else each for each in words)]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.startswith("pvops: ")
    assert error.count("\n") == 1


def test_an_exception_of_the_scripts_is_code_1(
    kernel: Path, typed: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    script(typed, "1/0")
    assert main(["shell", str(kernel)]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_script_is_read_from_a_file(kernel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text("print(run().reason)\nraise SystemExit(3)")
    assert main(["shell", str(kernel), "--script", str(file), "--json", "-"]) == 3
    seen = capsys.readouterr()
    found = json.loads(seen.out)
    assert (found["schema"], found["exit_code"], found["kernel"]) == ("pvops.shell/1", 3, str(kernel))
    assert seen.err.endswith("poweroff\n")
    assert main(["shell", str(kernel), "--script", str(tmp_path / "nowhere")]) == 2
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.usefixtures("typed")
def test_a_broken_plugin_opens_no_prompt(kernel: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("1/0")
    assert main(["shell", str(kernel), "--plugin", str(broken)]) == 4

"""``--record`` and ``--replay``: the same run again, of the same files alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pvops_core.cli import main
from pvops_core.cli.common import ExitCode
from pvops_core.runs.typescript import packed, read_typescript


@pytest.fixture
def recorded(echoing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The typescript of a run whose keys were there from the start."""
    (tmp_path / "keys").write_bytes(b"ab\r\xffq")
    file = tmp_path / "typescript"
    arguments = ["--memory", "32", "--cpus", "2", "--seed", "7", "--input", str(tmp_path / "keys")]
    assert main(["boot", str(echoing), *arguments, "--record", str(file)]) == ExitCode.FINE
    assert capsys.readouterr().out.startswith(">ab\r\ufffd")
    return file


def boot(*options: str | Path) -> int:
    return main(["boot", *map(str, options)])


def test_the_same_run_again(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = json.loads(recorded.read_text())
    assert [each["typed"] for each in script["typed"]] == ["ab\r\xffq"]
    assert (script["outcome"], script["cell"]["vcpus"], script["cell"]["seed"]) == ("poweroff", 2, 7)
    document = tmp_path / "boot.json"
    assert boot("--replay", recorded, "--json", document) == ExitCode.FINE
    assert "replay              the same run: its event log is the recorded one" in capsys.readouterr().out
    found = json.loads(document.read_text())
    assert found["event_log_sha256"] == script["event_log_sha256"]
    assert found["virtual_ns"] == script["virtual_ns"]


def test_a_replay_can_be_recorded_and_end_elsewhere(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = tmp_path / "again"
    assert boot("--replay", recorded, "--record", again) == ExitCode.FINE
    assert json.loads(again.read_text()) == json.loads(recorded.read_text())
    capsys.readouterr()
    assert boot("--replay", recorded, "--until", "a") == ExitCode.FINE
    shown = capsys.readouterr().out
    assert shown.startswith(">a\n")
    assert "of another run than the recorded one, as asked" in shown


def test_a_run_that_was_cut_is_cut_there_again(echoing: Path, tmp_path: Path) -> None:
    file = tmp_path / "typescript"
    assert boot(echoing, "--memory", "32", "--max-seconds", "0.2", "--record", file) == ExitCode.CRASH
    script = json.loads(file.read_text())
    assert script["outcome"] == "timeout"
    document = tmp_path / "boot.json"
    assert boot("--replay", file, "--json", document) == ExitCode.CRASH
    assert json.loads(document.read_text())["event_log_sha256"] == script["event_log_sha256"]


def test_another_kernel_is_refused_by_its_hash(
    recorded: Path, echoing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved"
    shutil.copy(echoing, moved)
    assert boot(moved, "--replay", recorded) == ExitCode.FINE, "the same, elsewhere"
    data = bytearray(echoing.read_bytes())
    data[data.index(b"\xba\xfc\x03") + 4] ^= 1
    echoing.write_bytes(data)
    capsys.readouterr()
    assert boot("--replay", recorded) == ExitCode.USAGE
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    script: dict[str, Any] = json.loads(recorded.read_text())
    assert f"kernel: the file says '{script['kernel']}', and here it is '" in error


def test_a_damaged_one_is_refused(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded.write_bytes(recorded.read_bytes().replace(b'"look": 0', b'"look": 1', 1))
    assert boot("--replay", recorded) == ExitCode.USAGE
    assert "sha256: is damaged: the file says" in capsys.readouterr().err


def test_a_ramdisk_that_has_changed_is_refused(
    echoing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, initrd = tmp_path / "typescript", tmp_path / "initrd"
    initrd.write_bytes(b"one")
    arguments = ["--memory", "32", "--until", ">", "--initrd", initrd]
    assert boot(echoing, *arguments, "--record", file) == ExitCode.FINE
    assert boot("--replay", file) == ExitCode.FINE
    initrd.write_bytes(b"two")
    capsys.readouterr()
    assert boot("--replay", file) == ExitCode.USAGE
    assert "initrd: the file says" in capsys.readouterr().err
    initrd.unlink()
    assert boot("--replay", file) == ExitCode.USAGE
    assert "cannot be read" in capsys.readouterr().err


def test_another_version_of_pvops_may_make_another_run(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = read_typescript(recorded)
    other = replace(script, event_log_sha256="0" * 64, versions={**script.versions, "unicorn": "1.0"})
    recorded.write_bytes(packed(other))
    assert boot("--replay", recorded) == ExitCode.DIFFERENCE
    shown = capsys.readouterr().out
    assert f"another run: event_log_sha256 was {'0' * 64}, and is {script.event_log_sha256}" in shown
    assert "unicorn was 1.0 and is" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "3"], "--seed cannot be given with it"),
        (["--cmdline", "quiet"], "--cmdline cannot be given with it"),
        (["--input", "keys"], "--input cannot be given with it"),
        (["--ops", "*"], "--ops cannot be given with it"),
        (["--load", "saved"], "--replay and --load cannot be given together"),
        (["--livepatch-socket", "socket"], "--replay and --livepatch-socket cannot be given together"),
    ],
)
def test_what_the_file_says_is_not_said_again(
    recorded: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert boot("--replay", recorded, *options) == ExitCode.USAGE
    assert message in capsys.readouterr().err


def test_what_cannot_be_recorded_is_refused_before_anything_runs(
    echoing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert boot(echoing, "--record", tmp_path / "no" / "folder") == ExitCode.USAGE
    assert boot("--load", "saved", "--record", tmp_path / "typescript") == ExitCode.USAGE
    assert "--record and --load cannot be given together" in capsys.readouterr().err
    assert boot(echoing, "--gdb", "0", "--record", tmp_path / "typescript") == ExitCode.USAGE
    assert "--record and --gdb cannot be given together" in capsys.readouterr().err
    assert boot(echoing, echoing, "--record", tmp_path / "typescript") == ExitCode.USAGE

"""The command as a process: closed and full outputs, readers that have had enough, interrupts, names mistyped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pvops_core.__main__ import main as start
from pvops_core.cli import main
from pvops_core.cli.common import ExitCode

PVOPS = (sys.executable, "-m", "pvops_core")


@pytest.mark.parametrize("words", [("--help",), ("backends",), ("backends", "--json", "-"), ("run",)], ids=" ".join)
def test_a_reader_that_has_had_enough_is_no_failure(words: tuple[str, ...]) -> None:
    with subprocess.Popen([*PVOPS, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("words", [("--help",), ("backends", "--json", "-")], ids=" ".join)
def test_a_full_output_is_said_in_one_line(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run([*PVOPS, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 4
    assert result.stderr == "pvops: standard output: No space left on device\n"


def test_a_stream_that_lacks_a_letter_gets_its_escape() -> None:
    """The ellipsis of a long list of names is no letter of ASCII."""
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    result = subprocess.run([*PVOPS, "run"], env=environment, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"\\u2026" in result.stdout


def test_bytes_that_are_no_utf8_go_to_the_guest_and_come_back_escaped() -> None:
    result = subprocess.run([*PVOPS, "run", "--cmdline", b"x\xff", "--json", "-"], capture_output=True, check=False)
    assert result.returncode == 0
    assert json.loads(result.stdout)["workload"] == "x\udcff"


@pytest.mark.parametrize("words", [("run", "--backend", "\x1b[31mred"), ("sites", "/no/\x1b[31mred"), ("\x1b[31mred",)])
def test_what_was_named_reaches_the_terminal_escaped(words: tuple[str, ...]) -> None:
    result = subprocess.run([*PVOPS, *words], capture_output=True, check=False)
    assert result.returncode == 2
    assert rb"\x1b[31mred" in result.stderr
    assert b"\x1b" not in result.stderr


def test_closed_streams_are_nothing_to_complain_of() -> None:
    command = f'"{sys.executable}" -m pvops_core backends --json - >&- 2>&-'
    assert subprocess.run(["/bin/sh", "-c", command], check=False).returncode == 0


def test_an_interrupted_run_says_so_without_a_traceback() -> None:
    words = ("run", "--cpus", "4", "--cmdline", "ticks=100000000")
    with subprocess.Popen(
        [*PVOPS, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()  # the guest is under way
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        process.stdout.read()
    assert process.returncode == 6
    assert said.splitlines()[-1:] == ["pvops: interrupted"]
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "guess"),
    [
        (["comapre"], "no verb 'comapre'; there are compare, "),
        (["run", "--backend", "natve"], "(did you mean native?)"),
        (["run", "--layout", "6.1-46"], "(did you mean 6.1-64?)"),
        (["compare", "--kinds", "x86-64"], "(did you mean x86_64?)"),
    ],
)
def test_mistyped_names_come_with_a_guess(words: list[str], guess: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert guess in capsys.readouterr().err


def test_an_interrupt_while_starting_up_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str, *_: object) -> None:
        if name == "pvops_core.cli":
            raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "pvops_core.cli")
    monkeypatch.setattr("builtins.__import__", interrupted)
    assert start() == ExitCode.CRASH
    assert capsys.readouterr().err == "pvops: interrupted\n"

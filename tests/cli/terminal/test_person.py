"""A whole command at a real terminal: every key is the guest's, Ctrl-A's are pvops', and it is left as it was."""

from __future__ import annotations

import json
import signal
import sys
import termios
from pathlib import Path

import pexpect
import pytest

from pvops_core.cli import main
from pvops_core.cli.common import ExitCode

KEYS = bytes(key for key in range(256) if key not in {0x01, ord("q")})


def booting(kernel: Path, *options: str) -> tuple[pexpect.spawn, list[object]]:
    command = ["-m", "pvops_core", "boot", str(kernel), "--memory", "32", *options]
    child = pexpect.spawn(sys.executable, command, timeout=60, dimensions=(31, 97))
    child.delaybeforesend = None
    before = termios.tcgetattr(child.child_fd)
    child.expect("pvops: ")  # the status line, until the guest prints
    child.expect(">")
    return child, before


def ended(child: pexpect.spawn) -> int | None:
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus  # type: ignore[no-any-return]


def test_every_key_is_the_guests(echoing: Path, tmp_path: Path) -> None:
    document = tmp_path / "boot.json"
    child, before = booting(echoing, "--json", str(document))
    for key in KEYS:
        pair = bytes((key, ord(".")))  # a letter of many bytes is shown when it is whole, or cannot be one
        child.send(pair)
        child.expect_exact(pair)
    child.send(b"\x01a")
    child.expect_exact(b"\x01")
    child.send(b"q")
    child.expect("outcome +poweroff")
    assert termios.tcgetattr(child.child_fd) == before
    assert ended(child) == ExitCode.FINE
    found = json.loads(document.read_text())
    assert found["workload"] == "pvops.size=31x97"
    assert found["console"] == (b">" + b"".join(bytes((key, ord("."))) for key in KEYS) + b"\x01").decode(
        errors="replace"
    )


def test_ctrl_a_has_keys_of_its_own(echoing: Path) -> None:
    child, before = booting(echoing)
    child.send(b"\x01h")
    child.expect("Ctrl-A x  end the run")
    child.send(b"\x01!")
    child.expect("Ctrl-A h tells")
    child.send(b"\x01x")
    child.expect("outcome +ended: Ctrl-A x\r\n")
    assert termios.tcgetattr(child.child_fd) == before
    assert ended(child) == ExitCode.FINE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_and_not_its_report(echoing: Path, number: signal.Signals) -> None:
    child, before = booting(echoing)
    child.kill(number)
    child.expect(f"outcome +ended: {number.name}")
    assert termios.tcgetattr(child.child_fd) == before
    assert ended(child) == ExitCode.CRASH


def test_a_terminal_that_is_closed_ends_the_run(echoing: Path, tmp_path: Path) -> None:
    document = tmp_path / "boot.json"
    child, _ = booting(echoing, "--json", str(document))
    child.ptyproc.fileobj.close()
    child.ptyproc.wait()
    assert json.loads(document.read_text())["outcome"] == "ended"


def test_there_is_no_limit_of_time_unless_one_is_asked_for(echoing: Path) -> None:
    child, _ = booting(echoing, "--max-seconds", "1")
    child.expect("outcome +timeout")
    assert ended(child) == ExitCode.CRASH


def test_what_was_typed_is_typed_again(echoing: Path, tmp_path: Path) -> None:
    file = tmp_path / "typescript"
    child, _ = booting(echoing, "--record", str(file))
    for key in b"keys\x03":
        child.send(bytes((key,)))
        child.expect_exact(bytes((key,)))
    child.send(b"\x01x")
    child.expect("outcome +ended: Ctrl-A x")
    assert ended(child) == ExitCode.FINE
    script = json.loads(file.read_text())
    assert "".join(each["typed"] for each in script["typed"]) == "keys\x03"
    assert script["typed"][-1]["leaving"] == "Ctrl-A x"
    assert main(["boot", "--replay", str(file)]) == ExitCode.FINE
    assert main(["boot", "--replay", str(file), "--until", "key"]) == ExitCode.FINE


def test_a_prompt_in_the_midst_of_a_run(echoing: Path) -> None:
    child, _ = booting(echoing)
    child.send(b"k")
    child.expect("k")
    child.send(b"\x01c")
    child.expect("The guest stands still; Ctrl-D lets it go on")
    child.expect(">>> ")
    child.send("before = session.machine.clock.ns\r")
    child.expect(">>> ")
    child.send("print('still', before == session.machine.clock.ns, len(vcpus))\r")
    child.expect("still True 1\r\n>>> ")
    child.send(b"\x04")
    child.send(b"j")
    child.expect("j")
    child.send(b"\x01c")
    child.expect(">>> ")
    child.send(b"exit()\r")
    child.send(b"q")
    child.expect("outcome +poweroff")
    assert ended(child) == ExitCode.FINE


def test_what_a_replay_could_not_do_is_no_part_of_a_record(echoing: Path, tmp_path: Path) -> None:
    child, _ = booting(echoing, "--record", str(tmp_path / "typescript"))
    child.send(b"\x01c")
    child.expect("no prompt: what you do there could not be replayed")
    child.send(b"q")
    child.expect("outcome +poweroff")
    assert ended(child) == ExitCode.FINE

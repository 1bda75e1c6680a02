"""Somebody at a real terminal, in a shell of the kernel that Debian ships: on bare metal and as a domain of Xen."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from pvops_core.cli import main
from pvops_core.errors import UsageError
from pvops_core.guests.linux.initrd.busybox import find_busybox

CLOUD = "vmlinuz-6.1.0-56-cloud-amd64"
PROMPT = r"[/~] # "
BOOT_S = 300
ANSWER_S = 60
IDLE_S = 10
MOST_IDLE = 0.05
"""Of a host's CPU, for a shell that waits."""

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


class Shell:
    """A shell in a guest, and the terminal at which somebody types."""

    def __init__(self, kernel: Path, backend: str, record: Path) -> None:
        console = {"native": "ttyS0", "xen": "hvc0"}[backend]
        options = ["--backend", backend, "--initrd", "shell", "--record", str(record)]
        words = f"console={console} quiet"
        command = ["-m", "pvops_core", "boot", str(kernel), *options, "--cmdline", words]
        self.terminal = pexpect.spawn(sys.executable, command, timeout=BOOT_S, dimensions=(31, 97))
        self.terminal.expect(r"pvops: \d+\.\d\d s of virtual time, [^\r]* of 1 vCPUs")
        self.terminal.expect(PROMPT)
        self.terminal.timeout = ANSWER_S

    def run(self, command: str) -> str:
        """What a command prints."""
        self.terminal.send(f"{command}\r")
        self.terminal.expect_exact("\r\n")
        self.terminal.expect(PROMPT)
        printed: str = self.terminal.before.decode()
        return printed.replace("\r", "").replace("\x1b[J", "").strip()

    def cpu_s(self) -> float:
        """Seconds of a CPU that the command and its worker have had so far."""
        children = Path(f"/proc/{self.terminal.pid}/task/{self.terminal.pid}/children").read_text().split()
        ticks = 0
        for pid in (self.terminal.pid, *children):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # utime and stime, proc(5)
        return ticks / os.sysconf("SC_CLK_TCK")


@pytest.fixture(params=["native", "xen"])
def shell(request: pytest.FixtureRequest, kernel_path: Callable[[str], Path], tmp_path: Path) -> Iterator[Shell]:
    try:
        find_busybox("x86_64", os.environ)
    except UsageError as missing:
        pytest.skip(str(missing))
    shell = Shell(kernel_path(CLOUD), request.param, tmp_path / "typescript")
    yield shell
    shell.terminal.close(force=True)


def edits_a_file(shell: Shell) -> None:
    terminal = shell.terminal
    terminal.send("vi /tmp/notes\r")
    terminal.expect("/tmp/notes")
    terminal.send("ione line\rand another")
    terminal.send("\x1b[A")  # an arrow, while inserting: up
    terminal.expect("I /tmp/notes .Modified. 1/2")
    for keys in ("\x1b", "A!\x1b"):
        terminal.send(keys)
        terminal.expect("- /tmp/notes .Modified. 1/2")  # what follows Escape at once would be a part of it
    terminal.send(":wq\r")
    terminal.expect(PROMPT)
    assert shell.run("cat /tmp/notes") == "one line!\nand another"


def knows_the_size(shell: Shell) -> None:
    assert shell.run("stty size") == "31 97"
    shell.terminal.setwinsize(40, 120)  # as a window is drawn larger: the guest has to ask
    shell.terminal.send("resize\r")
    shell.terminal.expect_exact("\x1b[999;999H\x1b[6n")  # where is the cursor, when sent to the far corner?
    shell.terminal.send("\x1b[40;120R")
    shell.terminal.expect(PROMPT)
    assert shell.run("stty size") == "40 120"


def test_a_session(shell: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    terminal = shell.terminal
    assert shell.run("echo sum $((6*7))") == "sum 42"
    terminal.send("/proc/upt\t")
    terminal.expect("ime")
    terminal.send("\x15ls /proc/upt\t\r")
    terminal.expect_exact("/proc/uptime\r\n")
    terminal.expect(PROMPT)
    knows_the_size(shell)
    begin = time.monotonic()
    terminal.send("sleep 100\r")
    terminal.expect_exact("\r\n")
    terminal.send("\x03")
    terminal.expect(PROMPT)
    assert time.monotonic() - begin < ANSWER_S
    edits_a_file(shell)
    begin = time.monotonic()
    assert shell.run("sleep 2; echo slept") == "slept"
    assert time.monotonic() - begin > 1.8, "a sleep is one in real time"
    time.sleep(1)
    before = shell.cpu_s()
    time.sleep(IDLE_S)
    assert (shell.cpu_s() - before) / IDLE_S < MOST_IDLE
    terminal.send("\x01x")
    terminal.expect("outcome +ended: Ctrl-A x")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    script = json.loads((tmp_path / "typescript").read_text())
    assert re.search("pvops.size=31x97", script["cell"]["workload"])
    for _ in range(2):
        assert main(["boot", "--replay", str(tmp_path / "typescript")]) == 0
        assert "replay              the same run" in capsys.readouterr().out

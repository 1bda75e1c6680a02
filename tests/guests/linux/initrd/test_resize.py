"""The shell's ``resize``: what the terminal says of itself is what its driver is told."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pexpect
import pytest

from pvops_core.guests.linux.initrd.contents import resize_program


@pytest.fixture
def asked(tmp_path: Path) -> pexpect.spawn:
    """A terminal that has just been asked."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("needs busybox (Debian's package busybox-static)")
    program = tmp_path / "resize"
    program.write_bytes(resize_program())
    command = [busybox, "sh", "-c", f"{busybox} sh {program}; echo $? $(stty size)"]
    child = pexpect.spawn(command[0], command[1:], timeout=60, env=os.environ | {"TERM": "vt100"})
    child.expect_exact("\x1b[999;999H\x1b[6n\x1b8")
    return child


def test_it_tells_the_driver(asked: pexpect.spawn) -> None:
    asked.send("\x1b[40;120R")
    asked.expect_exact("COLUMNS=120; LINES=40; export COLUMNS LINES;\r\n0 40 120\r\n")
    asked.expect(pexpect.EOF)


@pytest.mark.parametrize("answer", ["", "\x1b[;R", "\x1b[1;$(reboot)R", "R"])
def test_a_terminal_that_makes_no_sense_changes_nothing(asked: pexpect.spawn, answer: str) -> None:
    asked.send(answer)
    asked.expect_exact("resize: the terminal does not say where its cursor is\r\n1 24 80\r\n")
    asked.expect(pexpect.EOF)

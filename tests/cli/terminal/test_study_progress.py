"""A study at a real terminal: a table that lives, and a Ctrl-C that keeps what is done."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect

from pvops_core.cli import main
from pvops_core.cli.common import ExitCode
from pvops_core.study.store import Store

if TYPE_CHECKING:
    import pytest

STUDY = 'backends = ["native", "xen"]\nlayouts = "6.1-64"\nseeds = "0..19"\n'


def test_a_live_table_and_ctrl_c(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.toml").write_text(STUDY)
    command = ["-m", "pvops_core", "study", "a.toml", "--jobs", "2"]
    child = pexpect.spawn(
        sys.executable, command, cwd=str(tmp_path), timeout=120, dimensions=(31, 97), encoding="utf-8"
    )
    child.expect("0 of 40 cells run; begun")
    child.expect("backend.*done.*running.*left.*failed.*native.*xen")
    child.expect(r"[1-9] of 40 cells run; about [0-9.]+ s left")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    said = child.before or ""
    assert (child.exitstatus, child.signalstatus) == (ExitCode.CRASH, None)
    assert "Traceback" not in said
    assert "\x1b[?25h" in said, "the cursor is shown again"
    with Store.read(tmp_path / "a.results") as store:
        kept = len(store.keys())
    assert 1 <= kept < 40
    assert f"pvops: {kept} runs are kept in a.results; `pvops study resume a.results` goes on" in said
    assert main(["study", "status", str(tmp_path / "a.results")]) == ExitCode.NOTHING
    assert f"a: {kept} of 40 cells are done" in capsys.readouterr().out

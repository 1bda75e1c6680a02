"""``pvops prove``: what it tells, and its exit codes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pvops_core.cli import main
from tests.session.selfpatching import SelfPatching
from tests.testing.proofs.test_proving import Working

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pytest

ENDLESS = bytes.fromhex("ebfe")


def prove(folder: Path, body: Sequence[bytes | int], *words: str, sound: bool = True) -> int:
    """The exit code of a proof of read_cr2, whose own function works or does nothing."""
    kind = Working if sound else SelfPatching
    kernel = folder / "vmlinux"
    kernel.write_bytes(kind.of("mmu.read_cr2").build(body=body).data)
    return main(["prove", "--kernel", str(kernel), "--memory", "32", *words])


def test_sound_hooks_are_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prove(tmp_path, (0, 0)) == 0
    out = capsys.readouterr().out
    assert "mmu.read_cr2  native.read_cr2  native_read_cr2      2       2      2" in out
    assert "2 states of 1 ops, 0 unexplained differences; poweroff" in out


def test_a_difference_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prove(tmp_path, (bytes.fromhex("b801000000 0f22d0 31c0"), 0), sound=False) == 5  # CR2 is 1, eax 0
    assert "result:" in capsys.readouterr().out


def test_nothing_to_try_is_an_exit_code_of_its_own(tmp_path: Path) -> None:
    assert prove(tmp_path, ()) == 3


def test_time_that_is_up_is_told_with_what_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], enough: Callable[[int], float]
) -> None:
    file, seconds = tmp_path / "proof.json", enough(20)
    begun = time.monotonic()
    assert prove(tmp_path, (0, ENDLESS), "--max-seconds", str(seconds), "--json", str(file)) == 6
    assert 0.9 * seconds < time.monotonic() - begun < 1.5 * seconds
    found = json.loads(file.read_text())
    assert (found["whole"], found["equal"], found["tried"]) == (False, True, 1)
    assert "1 states of 1 ops, 0 unexplained differences; timeout" in capsys.readouterr().out

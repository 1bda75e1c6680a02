"""``pvops boot --save``, ``--load`` and ``pvops cache``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pvops_core.cli import main
from pvops_core.kept import KINDS, Kept
from pvops_core.saved.shelf import Shelf
from tests.cli.test_boot import kernel

__all__ = ["kernel"]


@pytest.fixture
def saved(kernel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A boot in the midst of what it prints."""
    file = tmp_path / "saved"
    assert (
        main(["boot", str(kernel), "--memory", "32", "--seed", "3", "--stop-at", "start+7", "--save", str(file)]) == 0
    )
    assert capsys.readouterr().out.startswith("O\n")
    return file


def test_a_boot_goes_on(kernel: Path, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, rest = tmp_path / "whole.json", tmp_path / "rest.json"
    assert main(["boot", str(kernel), "--memory", "32", "--seed", "3", "--json", str(whole)]) == 0
    capsys.readouterr()
    for moved in ([], [str(kernel)]):
        assert main(["boot", *moved, "--load", str(saved), "--json", str(rest)]) == 0
        assert capsys.readouterr().out.startswith("K\n")
        before, after = (json.loads(path.read_text()) for path in (whole, rest))
        for field in ("outcome", "console", "virtual_ns", "event_log_sha256", "text_sha256", "seed", "image"):
            assert before[field] == after[field]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--load", "SAVED", "--cpus", "2"], "--cpus cannot be given with it"),
        (["--load", "SAVED", "--set", "rtc=1"], "--set cannot be given with it"),
        (["--load", "nowhere"], "nowhere: cannot be read: No such file or directory"),
        (["--load", "/dev/null"], "not a regular file"),
        (["--load", "KERNEL"], "magic: is no saved session"),
        (["KERNEL", "--save", "x"], "--stop-at or --until ends the run: give one of them"),
        (["KERNEL", "--stop-at", "start", "--save", "nowhere/x"], "its folder does not exist"),
        ([], "give a KERNEL to boot, --load FILE to go on"),
        (["--load", "SAVED", "--stop-at", "0ns"], "has come by 0ns before"),
    ],
)
def test_what_cannot_be_is_refused(
    kernel: Path, saved: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    names = {"SAVED": str(saved), "KERNEL": str(kernel)}
    assert main(["boot", *(names.get(each, each) for each in arguments)]) == 2
    assert told in capsys.readouterr().err


def test_another_kernel_is_refused(kernel: Path, saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernel.write_bytes(kernel.read_bytes()[:-8])
    assert main(["boot", "--load", str(saved)]) == 2
    assert str(kernel) in capsys.readouterr().err


def test_a_damaged_file_is_refused(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.truncate(saved, saved.stat().st_size - 1)
    assert main(["boot", "--load", str(saved)]) == 2
    assert "bytes long and says" in capsys.readouterr().err


def test_a_run_that_ends_before_its_place_writes_nothing(
    kernel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    assert main(["boot", str(kernel), "--memory", "32", "--until", "never", "--save", str(file)]) == 2
    assert "is not written: the run ended (poweroff) before" in capsys.readouterr().err
    assert not file.exists()


def test_a_place_that_cannot_be_written_fails_the_run_and_keeps_its_result(
    kernel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert main(["boot", str(kernel), "--memory", "32", "--until", "O", "--save", str(tmp_path / "pipe")]) == 4
    shown = capsys.readouterr().out
    assert shown.startswith("O")
    assert "no regular file" in shown


def test_the_shelf_is_listed_and_cleared(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shelf = Shelf.of(os.environ)
    assert shelf is not None
    assert main(["cache", "list"]) == 0
    assert "0 MiB of at most 2048" in capsys.readouterr().out
    shelf.folder.mkdir(parents=True)
    shelf.path("a").write_bytes(saved.read_bytes())
    shelf.path("b").write_bytes(b"?")
    assert main(["cache", "list"]) == 0
    shown = capsys.readouterr().out
    assert "native" in shown
    assert "vmlinuz" in shown
    assert "damaged" in shown
    Kept("images", ("kept",), 4).write("some", b"", bytes(9000))
    assert main(["cache", "list", "--json", "-"]) == 0
    others = {each["name"]: each for each in json.loads(capsys.readouterr().out)["others"]}
    assert others.keys() == KINDS.keys()
    assert others["images"]["files"] == 1
    assert others["images"]["bytes"] >= 9000
    assert main(["cache", "clear", "--older", "1"]) == 0
    assert capsys.readouterr().out.startswith("0 taken away")
    assert main(["cache", "clear"]) == 0
    assert capsys.readouterr().out.startswith("2 taken away, and 1 files of other kinds")
    assert not shelf.files()
    assert Kept("images", ("kept",), 4).read("some") is None


@pytest.mark.parametrize(("size", "told"), [("0", "nothing is kept"), ("many", "is no number of MiB")])
def test_a_shelf_that_is_not_there_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, size: str, told: str
) -> None:
    monkeypatch.setenv("PVOPS_CACHE_MIB", size)
    assert main(["cache", "list"]) == 2
    assert told in capsys.readouterr().err

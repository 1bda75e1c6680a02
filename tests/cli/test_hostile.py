"""Whatever a verb is given, it ends soon, with one line that names it and an exit code that says whose fault it is."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from pvops_core.cli import main
from pvops_core.testing.images import ElfBuilder

READERS = {
    "sites": ["sites", "{}"],
    "patch": ["patch", "{}", "--backend", "native"],
    "boot": ["boot", "{}", "--max-seconds", "5"],
    "boot's initrd": ["boot", "kernel", "--initrd", "{}", "--max-seconds", "5"],
    "compare": ["compare", "--backends", "native", "--kernel", "{}", "--max-seconds", "5"],
    "livepatch show": ["livepatch", "show", "{}"],
    "livepatch run": ["livepatch", "run", "{}"],
    "livepatch build": ["livepatch", "build", "{}", "--output", "made"],
}
WRITERS = {
    "run --json": ["run", "--json", "{}"],
    "run --events": ["run", "--events", "{}"],
    "compare --html": ["compare", "--backends", "native", "--layouts", "6.1-64", "--html", "{}"],
    "backends --json": ["backends", "--json", "{}"],
    "new-backend": ["new-backend", "demo", "--directory", "{}"],
    "scenario --json": ["scenario", "--json", "{}"],
}
NUMBERS = ("0", "-1", "nan", "1e9", "many", "9" * 40)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    builder = ElfBuilder(64, 0x1000000)
    builder.symbol("start", builder.text(".text", b"\xf4"))
    (tmp_path / "kernel").write_bytes(builder.build())
    (tmp_path / "garbage").write_bytes(bytes(range(256)) * 16)
    (tmp_path / "grünes\nBlatt").write_bytes(b"\xff")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe")))
    return tmp_path


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a verb says that refuses: one line."""
    code = main(words)
    error = capsys.readouterr().err
    assert code == 2, error
    assert error.count("\n") == 1
    assert error.startswith("pvops: ")
    return error


@pytest.mark.parametrize("file", ["garbage", "grünes\nBlatt", "folder", "absent", "x" * 5000, "a\0b"])
@pytest.mark.parametrize("verb", [name for name in READERS if "initrd" not in name])
def test_a_file_that_is_none_of_its_kind(verb: str, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused([word.format(file) for word in READERS[verb]], capsys)


@pytest.mark.parametrize("file", ["folder", "absent"])
def test_a_ramdisk_that_cannot_be_read(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert file in refused([word.format(file) for word in READERS["boot's initrd"]], capsys)


@pytest.mark.parametrize("verb", [name for name in READERS if "initrd" not in name])
def test_a_file_without_end(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "/dev/zero" in refused([word.format("/dev/zero") for word in READERS[verb]], capsys)


@pytest.mark.parametrize("target", ["folder", "absent/file", "/proc/nowhere"])
@pytest.mark.parametrize("verb", WRITERS)
def test_a_target_that_cannot_be_written(verb: str, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    if (verb, target) == ("new-backend", "absent/file"):
        pytest.skip("makes the folder")
    if (verb, target) == ("compare --html", "/proc/nowhere"):
        pytest.skip("is seen when all is done, as `run --json` shows")
    main([word.format(target) for word in WRITERS[verb]])
    error = capsys.readouterr().err
    assert target in error
    assert "Traceback" not in error


@pytest.mark.parametrize("verb", WRITERS)
def test_a_target_whose_name_is_too_long(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = refused([word.format("x" * 10_000) for word in WRITERS[verb]], capsys)
    assert len(error) < 600, error


LONG = "x" * 10_000
NAMES = (
    ["run", "--backend", LONG], ["run", "--layout", LONG], ["run", "--set", f"a={LONG}"], ["run", "--switch", LONG],
    ["run", "--plugin", LONG], ["run", "--cpus", LONG], ["compare", "--backends", LONG], ["scenario", LONG], [LONG],
    ["run", f"--{LONG}"], ["boot", LONG], ["cache", LONG],
)  # fmt: skip


@pytest.mark.parametrize("words", NAMES, ids=lambda words: " ".join(words).replace(LONG, "…"))
def test_a_name_without_end_is_shown_by_its_ends(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert len(refused(words, capsys)) < 1200


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    "words", [("run", "--cpus"), ("run", "--memory"), ("boot", "kernel", "--cpus"), ("compare", "--jobs")], ids=" ".join
)
def test_a_number_that_is_none(words: tuple[str, ...], number: str, capsys: pytest.CaptureFixture[str]) -> None:
    if words[1] == "--jobs" and number == NUMBERS[-1]:
        pytest.skip("as many as there are cells")
    assert words[-1] in refused([*words, number], capsys)

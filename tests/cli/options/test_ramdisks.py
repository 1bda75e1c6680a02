"""``--initrd shell``: the same bytes as the verb writes, kept once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvops_core import cli
from pvops_core.cli.options.ramdisks import ramdisk, shell_console
from pvops_core.errors import UsageError
from pvops_core.kinds import MachineKind
from tests.programs import program


@pytest.fixture(autouse=True)
def _two_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, bits in (("wide", 64), ("narrow", 32)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "busybox").write_bytes(program(bits))
    monkeypatch.setenv("PATH", f"{tmp_path / 'narrow'}:{tmp_path / 'wide'}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("kind", "arch"), [(MachineKind.X86_64, "x86_64"), (MachineKind.PAE, "i386"), (MachineKind.I386, "i386")]
)
def test_as_the_verb_writes_it(kind: MachineKind, arch: str, tmp_path: Path) -> None:
    kept = Path(ramdisk("shell", kind))
    assert cli.main(["initrd", "-o", str(tmp_path / "made"), "--arch", arch]) == 0
    assert kept.read_bytes() == (tmp_path / "made").read_bytes()


def test_kept_once_and_made_again_where_it_is_damaged() -> None:
    kept = Path(ramdisk("shell", MachineKind.X86_64))
    whole = kept.read_bytes()
    kept.write_bytes(b"damaged")
    assert ramdisk("shell", MachineKind.X86_64) == str(kept)
    assert kept.read_bytes() == whole
    assert list(kept.parent.iterdir()) == [kept]


def test_files_are_what_they_are() -> None:
    assert ramdisk("", MachineKind.X86_64) == ""
    assert ramdisk("./shell", MachineKind.X86_64) == "./shell"


def test_nowhere_to_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="cannot be kept"):
        ramdisk("shell", MachineKind.X86_64)
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name)
    with pytest.raises(UsageError, match="pvops initrd -o FILE"):
        ramdisk("shell", MachineKind.X86_64)


@pytest.mark.parametrize(
    ("given", "backend", "kind", "console"),
    [
        ("shell", "native", MachineKind.X86_64, "ttyS0"),
        ("shell", "xen", MachineKind.X86_64, "hvc0"),
        ("shell", "none", MachineKind.X86_64, ""),
        ("shell", "lguest", MachineKind.X86_64, ""),
        ("./shell", "native", MachineKind.X86_64, ""),
        ("", "native", MachineKind.X86_64, ""),
    ],
)
def test_a_shell_is_where_the_platform_shows_it(given: str, backend: str, kind: MachineKind, console: str) -> None:
    assert shell_console(given, backend, kind, ()) == console

"""The QEMU that is started: its arguments, its files, and what it says when it will not."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import pytest

from pvops_core.errors import ImageError, UsageError
from pvops_core.recording.qemu import PROGRAM, Boot, find_qemu, machine
from pvops_core.recording.stub import RecordingError
from pvops_core.testing.qemu import Story, install


@pytest.fixture
def boot(tmp_path: Path) -> Boot:
    kernel = tmp_path / "a kernel, with a comma"
    kernel.write_bytes(b"kernel")
    return Boot(kernel=kernel)


def only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_bare_metal(boot: Boot) -> None:
    words = boot.arguments(Path("/f"))
    assert words[words.index("-kernel") + 1] == "/f/kernel"
    assert words[words.index("-append") + 1] == "console=ttyS0 earlyprintk=serial nokaslr panic=-1"
    assert "-initrd" not in words
    assert words[words.index("-m") + 1] == "512"


def test_a_first_domain(tmp_path: Path) -> None:
    boot = Boot(kernel=tmp_path, initrd=tmp_path, xen=tmp_path, cpus=2, memory=100, words="a=1,2")
    words = boot.arguments(Path("/f"))
    assert words[words.index("-kernel") + 1] == "/f/xen"
    assert words[words.index("-m") + 1] == "356"
    assert "dom0_mem=100M dom0_max_vcpus=2" in words[words.index("-append") + 1]
    assert words[words.index("-initrd") + 1] == (
        "/f/kernel console=hvc0 earlyprintk=xen nokaslr panic=-1 a=1,,2,/f/initrd"
    )


def test_qemu_that_is_missing_is_named_with_its_package(
    boot: Boot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"not installed; .* package qemu-system-x86 \(apt install qemu-system-x86\)"):
        find_qemu()
    with pytest.raises(UsageError, match="not installed"), machine(boot, 1):
        pass


def test_what_qemu_refuses_is_said(boot: Boot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, Story(refuses="qemu: unable to find CPU model 'z80'"))
    only(tmp_path, monkeypatch)
    with (
        pytest.raises(UsageError, match=r"QEMU does not start: qemu: unable to find CPU model 'z80'"),
        machine(boot, 20),
    ):
        pass


def test_files_that_are_not_there(tmp_path: Path, boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, Story())
    only(tmp_path, monkeypatch)
    bad = tmp_path / "bad.gz"
    bad.write_bytes(b"\x1f\x8bnot so")
    with pytest.raises(UsageError, match="gone: no such file"), machine(Boot(kernel=tmp_path / "gone"), 20):
        pass
    for path, message in ((bad, "cannot be read"), (tmp_path / "no", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ImageError, match=message), machine(Boot(kernel=boot.kernel, xen=path), 20):
            pass


def test_a_packed_hypervisor_is_unpacked(tmp_path: Path, boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, Story())
    only(tmp_path, monkeypatch)
    xen = tmp_path / "xen.gz"
    xen.write_bytes(gzip.compress(b"hypervisor"))
    seen: list[bytes] = []
    plain = subprocess.Popen

    def start(command: list[str], **more: object) -> subprocess.Popen[bytes]:
        seen.append(Path(command[command.index("-kernel") + 1]).read_bytes())
        return plain(command, **more)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr("pvops_core.recording.qemu.subprocess.Popen", start)
    with machine(Boot(kernel=boot.kernel, xen=xen), 20):
        pass
    assert seen == [b"hypervisor"]


def test_a_boot_that_ends_says_its_last_words_and_leaves_nothing(
    boot: Boot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = install(tmp_path, Story(console="one\nPanic: two\n"))
    only(tmp_path, monkeypatch)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(RecordingError, match=r"ended .*; its last words: one \| Panic: two"), machine(boot, 20) as stub:
        stub.go()
    assert {path.name for path in tmp_path.iterdir()} == {program.name, "story.json", boot.kernel.name}
    assert program.name == PROGRAM


def test_what_went_wrong_is_said_though_much_is_said_after_it(
    boot: Boot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ["all is well", "(XEN) Domain 0 (vcpu#0) crashed on cpu#0:", *(f"stack {number}" for number in range(99))]
    install(tmp_path, Story(console="\n".join(said)))
    only(tmp_path, monkeypatch)
    message = r"Domain 0 \(vcpu#0\) crashed on cpu#0: \| stack 0 \| stack 1 \| stack 96 \| stack 97 \| stack 98$"
    with pytest.raises(RecordingError, match=message), machine(boot, 20) as stub:
        stub.go()

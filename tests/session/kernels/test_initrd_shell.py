"""The ramdisk that ``pvops initrd`` makes: its shell in Debian's kernels, on bare metal and as a domain of Xen."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pvops_core import cli
from pvops_core.errors import UsageError
from pvops_core.guests.linux.initrd.busybox import find_busybox
from tests.ramdisk import entries

CLOUD, PAE = "vmlinuz-6.1.0-56-cloud-amd64", "vmlinuz-6.1.0-50-686-pae"
TYPED = b"echo $((6*7)); tty; stty size; cat /etc/greeting; sleep 99 &\njobs; ls -l /bin/ls; exit\n"
"""What a line means is seen where the shell answers, for its echo has the line itself."""


@pytest.fixture
def folder_of_busybox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes the busybox that lies in a ramdisk the host's first, where that ramdisk is there."""

    def put(ramdisk: Path) -> None:
        if not ramdisk.is_file():
            machine = "i386" if "i386" in ramdisk.name else "x86_64"
            try:
                find_busybox(machine, os.environ)
            except UsageError as failure:
                pytest.skip(f"no {ramdisk.name} beside the kernel, and {failure}")
            return
        (tmp_path / "bin").mkdir()
        found = {name: data for name, _, data in entries(gzip.decompress(ramdisk.read_bytes()))}
        (tmp_path / "bin" / "busybox").write_bytes(found["bin/busybox"])
        monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")

    return put


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "backend", "terminal"), [(CLOUD, "native", "ttyS0"), (CLOUD, "xen", "hvc0"), (PAE, "native", "ttyS0")]
)
def test_a_shell_controls_jobs_on_a_terminal_of_the_right_size(
    name: str,
    backend: str,
    terminal: str,
    kernel_path: Callable[[str], Path],
    folder_of_busybox: Callable[[Path], None],
    tmp_path: Path,
) -> None:
    kernel = kernel_path(name)
    folder_of_busybox(kernel.with_name("initramfs-i386.cpio.gz" if name == PAE else "initramfs.cpio.gz"))
    (tmp_path / "greeting").write_text("good morning\n")
    (tmp_path / "script").write_text("#!/bin/sh\necho before the shell\n")
    (tmp_path / "typed").write_bytes(TYPED)
    ramdisk = ["-o", str(tmp_path / "initrd"), "--add", f"{tmp_path}/greeting:/etc/", "--arch"]
    first = ["--shell", "--init", str(tmp_path / "script")]
    assert cli.main(["initrd", *ramdisk, "i386" if name == PAE else "x86_64", *first]) == 0
    files = ["--initrd", str(tmp_path / "initrd"), "--input", str(tmp_path / "typed"), "--json", str(tmp_path / "json")]
    words = f"console={terminal} quiet pvops.size=37x119"
    assert cli.main(["boot", str(kernel), "--backend", backend, "--cmdline", words, *files]) == 0
    told = json.loads((tmp_path / "json").read_text())
    assert told["outcome"] == "poweroff"
    lines = [line.strip() for line in told["console"].splitlines()]
    start = lines.index("before the shell")
    assert lines[start + 1] == f"pvops: a shell on /dev/{terminal}; exit powers the machine off"
    after = lines[start + 2 :]
    assert [line for line in after if line in {"42", f"/dev/{terminal}", "37 119", "good morning"}] == [
        *("42", f"/dev/{terminal}", "37 119", "good morning")
    ]
    assert any(line.startswith("[1]+  Running") for line in after)
    assert any(line.endswith("/bin/ls -> /bin/busybox") for line in after)
    assert "job control turned off" not in told["console"]


@pytest.mark.kernel
@pytest.mark.slow
def test_made_on_the_fly(
    kernel_path: Callable[[str], Path],
    folder_of_busybox: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = kernel_path(CLOUD)
    folder_of_busybox(kernel.with_name("initramfs.cpio.gz"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "typed").write_bytes(b"echo $((6*7))\nexit\n")
    files = ["--initrd", "shell", "--input", str(tmp_path / "typed"), "--json", str(tmp_path / "json")]
    assert cli.main(["boot", str(kernel), "--cmdline", "quiet", *files]) == 0
    assert "\n42\r\n" in json.loads((tmp_path / "json").read_text())["console"]
    assert len(list((tmp_path / "cache" / "pvops" / "ramdisks").iterdir())) == 1

"""A shell in the kernel that Debian ships, as a domain of the Xen model: typed at, and asked to end."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from pvops_core.backends import chain, load_backends
from pvops_core.backends.keyboard import Keyboard
from pvops_core.guests import read_kernel
from pvops_core.session import Session

CLOUD = "vmlinuz-6.1.0-56-cloud-amd64"
INIT = b"""#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
exec /bin/busybox sh </dev/hvc0 >/dev/hvc0 2>&1
"""
TYPED = b"cat /sys/hypervisor/uuid /sys/hypervisor/version/extra; ls -1 /sys/bus; echo sum $((6*7))\n"


def with_init(initrd: Path, folder: Path, init: bytes) -> Path:
    """The same ramdisk with another init: of two archives in a row the second's file counts."""

    def entry(name: bytes, mode: int, data: bytes) -> bytes:
        fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name + b"\0"
        return b"".join(part + bytes(-len(part) % 4) for part in (head, data))

    first = initrd.read_bytes()
    second = gzip.compress(entry(b"init", 0o100755, init) + entry(b"TRAILER!!!", 0, b""), mtime=0)
    path = folder / "initramfs"
    path.write_bytes(first + bytes(-len(first) % 4) + second)
    return path


@pytest.mark.kernel
@pytest.mark.slow
def test_a_shell_answers_and_the_kernel_ends_when_asked(kernel_path: Callable[[str], Path], tmp_path: Path) -> None:
    path = kernel_path(CLOUD)
    initrd = path.with_name("initramfs.cpio.gz")
    if not initrd.is_file():
        pytest.skip(f"no {initrd.name} beside the kernel")
    backends = load_backends().backends
    kernel = read_kernel(str(path), str(with_init(initrd, tmp_path, INIT)), "console=hvc0 nr_cpus=1 quiet")
    with Session(kernel, chain(backends["xen"], backends), until="sum 42", keyboard=Keyboard(TYPED)) as session:
        assert session.run(max_seconds=300).reason == "until"
        console = bytes(session.platform.console).decode().replace("\r", "")
        assert "\n70766f70-7300-4000-8000-000000000001\n" in console
        assert "\nxen\n" in console
        assert "multicall(s) failed" not in console
        session.platform.until = b""
        session.platform.request_shutdown("reboot")  # type: ignore[attr-defined]
        assert session.run(max_seconds=300).reason == "reboot"
        assert b"reboot: Restarting system" in session.platform.console

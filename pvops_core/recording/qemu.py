"""The QEMU that boots a kernel to be recorded: its command, its process, and the socket to its debugger stub."""

from __future__ import annotations

import gzip
import re
import shutil
import socket
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import ImageError, UsageError
from pvops_core.recording.stub import RecordingError, Stub

if TYPE_CHECKING:
    from typing import IO

PROGRAM: Final = "qemu-system-x86_64"
PACKAGE: Final = "qemu-system-x86"
"""Of Debian and Ubuntu; Fedora and Arch call theirs qemu-system-x86 too."""

XEN_ROOM: Final = 256
"""MiB that Xen has beside what its first domain gets."""

_GZIP: Final = b"\x1f\x8b"
_LARGEST: Final = 64 << 20
_LINES: Final = 3
_WRONG: Final = re.compile(r"panic|\bfatal|\bcrash|\bBUG\b|Oops|fault", re.IGNORECASE)
"""What Linux and Xen say before they show registers and a stack."""


@attrs.frozen(kw_only=True)
class Boot:
    """What is booted, and on what.

    Attributes:
        kernel: the kernel, a file that QEMU or Xen loads.
        initrd: its ramdisk; None for none.
        xen: a hypervisor whose first domain it is, packed by gzip or not; None for bare metal.
        cpu: model of QEMU's, with what it calls properties: ``EPYC,-svm``.
        cpus: number of CPUs.
        memory: the kernel's memory in MiB.
        words: more words of its command line.
    """

    kernel: Path
    initrd: Path | None = None
    xen: Path | None = None
    cpu: str = "qemu64"
    cpus: int = 1
    memory: int = 512
    words: str = ""

    @property
    def command_line(self) -> str:
        """Of the kernel: where it is linked it shall stay, and what goes wrong shall be an end."""
        console = "console=hvc0 earlyprintk=xen" if self.xen else "console=ttyS0 earlyprintk=serial"
        return f"{console} nokaslr panic=-1 {self.words}".strip()

    def arguments(self, folder: Path) -> list[str]:
        """QEMU's arguments but for the debugger; the files are those of a folder, which :func:`_lay_out` fills."""
        memory = self.memory + (XEN_ROOM if self.xen else 0)
        words = ["-accel", "tcg", "-cpu", self.cpu, "-smp", str(self.cpus), "-m", str(memory)]
        words += ["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot", "-net", "none"]
        kernel, initrd = folder / "kernel", folder / "initrd"
        if self.xen is None:
            words += ["-kernel", str(kernel), "-append", self.command_line]
            return words + (["-initrd", str(initrd)] if self.initrd else [])
        said = f"console=com1 com1=115200 dom0=pv dom0_mem={self.memory}M dom0_max_vcpus={self.cpus}"
        # Modules of a multiboot kernel are parted by commas; one within is written twice.
        modules = f"{kernel} {self.command_line}".replace(",", ",,") + (f",{initrd}" if self.initrd else "")
        return [*words, "-kernel", str(folder / "xen"), "-append", said, "-initrd", modules]


def find_qemu() -> str:
    """The path of QEMU.

    Raises:
        UsageError: it is not installed.
    """
    path = shutil.which(PROGRAM)
    if path is None:
        raise UsageError(f"{PROGRAM} is not installed; it is in the package {PACKAGE} (apt install {PACKAGE})")
    return path


@contextmanager
def machine(boot: Boot, seconds: float) -> Iterator[Stub]:
    """A QEMU that stands before its first instruction; it ends with the context.

    Args:
        boot: what it boots.
        seconds: see :class:`~pvops_core.recording.stub.Stub`.

    Raises:
        UsageError: QEMU is not installed, or refuses its arguments.
        RecordingError: what is raised in the context says afterwards how far the console came.
    """
    program = find_qemu()
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="pvops-record-", ignore_cleanup_errors=True))
        )
        _lay_out(boot, folder)
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        console = stack.enter_context((folder / "console").open("w+b"))
        complaints = stack.enter_context((folder / "complaints").open("w+b"))
        with theirs:
            debugger = ["-S", "-chardev", f"socket,id=debugger,fd={theirs.fileno()}", "-gdb", "chardev:debugger"]
            process = subprocess.Popen(  # noqa: S603 - the user's own QEMU
                [program, *boot.arguments(folder), *debugger],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=complaints,
                pass_fds=[theirs.fileno()],
            )
        stack.callback(_end, process)
        stub = Stub(ours, seconds)
        try:
            stub.greet()
        except RecordingError as failure:
            raise UsageError(f"QEMU does not start: {_tail(complaints) or failure}") from failure
        try:
            yield stub
        except RecordingError as failure:
            said = _tail(console) or _tail(complaints)
            failure.message += f"; its last words: {said}" if said else "; it had said nothing"
            raise


def _lay_out(boot: Boot, folder: Path) -> None:
    """Give the files names that QEMU's own syntax does not take apart."""
    for name, path in (("kernel", boot.kernel), ("initrd", boot.initrd)):
        if path is not None:
            if not path.is_file():
                raise UsageError(f"{path}: no such file")
            (folder / name).symlink_to(path.resolve())
    if boot.xen is not None:
        (folder / "xen").write_bytes(_unpacked(boot.xen))


def _unpacked(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP):
            with gzip.open(path) as packed:
                data = packed.read(_LARGEST)
    except (OSError, EOFError, zlib.error) as failure:
        raise ImageError(f"cannot be read: {getattr(failure, 'strerror', None) or failure}", str(path)) from failure
    return data


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _tail(file: IO[bytes]) -> str:
    """The last lines, and before them those that say what went wrong: registers and a stack may follow these."""
    file.seek(0)
    lines = [line.strip() for line in file.read().decode(errors="replace").split("\n") if line.strip()]
    wrong = max((index for index, line in enumerate(lines) if _WRONG.search(line)), default=len(lines))
    told = lines[wrong : min(wrong + _LINES, len(lines) - _LINES)]
    return " | ".join(told + lines[-_LINES:])

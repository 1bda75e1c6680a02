"""``--initrd shell``: a ramdisk that is made when it is asked for, and kept by its content."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from pvops_core.cachefolder import cache_folder
from pvops_core.cli.common import write_file
from pvops_core.errors import UsageError
from pvops_core.kinds import will_do

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pvops_core.kinds import MachineKind

SHELL: Final = "shell"
"""In place of a file; one of this name is ./shell."""
_KIND: Final = "ramdisks"


def ramdisk(given: str, kind: MachineKind) -> str:
    """The file that ``--initrd`` names; empty for none.

    Args:
        given: what was given; empty for nothing.
        kind: the machine that the kernel needs.

    Raises:
        UsageError: a shell was asked for, and there is no busybox for it, or no folder to keep it in.
    """
    return str(_shell(kind)) if given == SHELL else given


def shell_console(given: str, backend: str, kind: MachineKind, plugins: Sequence[str]) -> str:
    """What a kernel prints to unless its command line says so, where it gets a shell: it would not be seen elsewhere.

    Args:
        given: what was given to ``--initrd``.
        backend: name of the backend that it boots on.
        kind: the machine that the kernel needs.
        plugins: what was given to ``--plugin``.

    Returns:
        The console that the backend's platform serves; empty where a file was given, or the run itself will tell that
        there is no such backend or that it hosts no such kernel.
    """
    if given != SHELL:
        return ""
    from pvops_core.backends import chain, load_backends  # noqa: PLC0415 - heavy
    from pvops_core.guests.linux.kernel import BOOT_PROTOCOL  # noqa: PLC0415
    from pvops_core.session import hosted  # noqa: PLC0415

    backends = load_backends(plugins=plugins).backends
    try:
        return hosted(BOOT_PROTOCOL, will_do(kind), chain(backends[backend], backends))[0].console_name
    except (KeyError, UsageError):
        return ""


def _shell(kind: MachineKind) -> Path:
    """The same bytes as ``pvops initrd`` writes."""
    from hashlib import sha256  # noqa: PLC0415 - seldom wanted, as all of these

    from pvops_core.guests.linux.initrd.busybox import find_busybox  # noqa: PLC0415
    from pvops_core.guests.linux.initrd.contents import contents, packed  # noqa: PLC0415

    data = packed(contents(find_busybox("x86_64" if kind.bits == 64 else "i386", os.environ)))
    folder = cache_folder(os.environ)
    if folder is None:
        raise UsageError(
            "--initrd shell: there is no folder to keep it in (XDG_CACHE_HOME, HOME): make one with "
            "pvops initrd -o FILE, and give that"
        )
    file = folder / _KIND / f"{sha256(data).hexdigest()}.cpio.gz"
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not file.is_file() or file.read_bytes() != data:
            write_file(file, data)
        os.utime(file)
    except OSError as failure:
        raise UsageError(f"{file}: cannot be kept: {failure.strerror}") from failure
    return file

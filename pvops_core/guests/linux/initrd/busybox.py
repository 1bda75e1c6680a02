"""The busybox that a ramdisk's programs all are: one of the host, of the right width, that needs no libraries."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

from pvops_core.errors import ImageError, UsageError
from pvops_core.images.program import read_program
from pvops_core.images.reading import read_file

_NAMES: Final = ("busybox", "busybox.static", "busybox-static")
"""As Debian, Fedora and Arch call it, then Alpine, then others."""
_FOLDERS: Final = ("/bin", "/usr/bin", "/sbin", "/usr/sbin", "/usr/local/bin")
_REASON: Final = re.compile("[,;:]")
"""Where the short of a message ends."""
_WHENCE: Final = {
    "x86_64": "install the package busybox-static (Debian, Ubuntu, Alpine) or busybox (Fedora, Arch)",
    "i386": "unpack Debian's package busybox-static for i386 (dpkg -x busybox-static_*_i386.deb .)",
}


@attrs.frozen
class Busybox:
    """A busybox that will do.

    Attributes:
        path: the file.
        data: its bytes.
    """

    path: str
    data: bytes = attrs.field(repr=False)


def read_busybox(path: Path, machine: str) -> Busybox:
    """A busybox that was named.

    Args:
        path: the file.
        machine: what it must be for: ``"x86_64"`` or ``"i386"``.

    Raises:
        ImageError: it cannot be read, is for another machine, or needs libraries.
    """
    data = read_file(path, str(path))
    program = read_program(data, str(path))
    if program.machine != machine:
        raise ImageError(f"is for {program.machine}, not {machine}: {_WHENCE[machine]}", str(path), 18, "e_machine")
    if program.interpreter:
        message = f"is linked dynamically (by {program.interpreter}); a static one is needed: {_WHENCE[machine]}"
        raise ImageError(message, str(path), field="PT_INTERP")
    return Busybox(str(path), data)


def find_busybox(machine: str, environ: Mapping[str, str]) -> Busybox:
    """The first of the host's that will do: in the folders of ``PATH``, then where systems have one.

    Args:
        machine: what it must be for.
        environ: the variables of the caller.

    Raises:
        UsageError: there is none; the message says of those that were found what is wrong with each.
    """
    unfit = []
    for path in _candidates(environ):
        try:
            return read_busybox(path, machine)
        except ImageError as failure:
            unfit.append(f"{path} {_REASON.split(failure.message)[0]}")
    there = f" ({', '.join(unfit)})" if unfit else ""
    raise UsageError(
        f"there is no static busybox for {machine} here{there}: {_WHENCE[machine]}, and put it into PATH or name it "
        "with --busybox FILE"
    )


def _candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    """Files of such names, each once however many folders lead to it."""
    seen = set()
    for folder in (*environ.get("PATH", "").split(":"), *_FOLDERS):
        for name in _NAMES:
            path = Path(folder, name)
            if folder and path.is_file() and (real := path.resolve()) not in seen:
                seen.add(real)
                yield path

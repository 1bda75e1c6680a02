"""A session's kernel as a dump for debuggers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.beside import replacing
from pvops_core.dumps import vmcore
from pvops_core.dumps.notes import VMCOREINFO, note, status_of
from pvops_core.dumps.vmcoreinfo import from_symbols, kernels_own
from pvops_core.errors import MachineError, UsageError
from pvops_core.guest import find_symbol
from pvops_core.session.findings import Dumped

if TYPE_CHECKING:
    from pathlib import Path

    from pvops_core.session.session import Session

_KERNEL_MAP: Final = 0xFFFFFFFF80000000
"""Where Linux's image is mapped: __START_KERNEL_map (asm/page_64_types.h)."""


def check(session: Session) -> None:
    """Refuse guests that no debugger would read; UsageError."""
    image = session.kernel.image
    if image.pointer_size != 8:
        raise UsageError(
            f"{image.path} is a 32-bit kernel, and dumps are of 64-bit ones alone: no debugger of today translates the "
            "addresses of an i386 one (drgn has no page tables of it)"
        )


def dump(session: Session, path: Path) -> Dumped:
    """Write the dump of a session that stands still: all of it, or the file is as it was before; see Session.dump."""
    check(session)
    kernel, machine, symbols = session.kernel, session.machine, session.guest.symbols
    if machine.running:
        raise MachineError("a handler is running: a dump is made between two runs")
    text = find_symbol(kernel.image, "_text", "_stext")
    phys_base = kernel.physical(text) - (text - _KERNEL_MAP)
    own = kernels_own(session.space, symbols)
    info = own if own is not None else from_symbols(kernel.image, machine.vcpus[0], phys_base)
    notes = b"".join((*map(status_of, machine.vcpus), note(VMCOREINFO, 0, info)))
    base = kernel.direct_map(session.text)
    end = symbols.get("_end", text)
    stretches = [
        vmcore.Stretch(text, kernel.physical(text), end - text),
        *(vmcore.Stretch(base + first, first, last - first) for first, last in session.platform.ram()),
    ]
    with replacing(path, "a dump") as file:
        vmcore.write(file.fileno(), notes, stretches, session.platform.ram_contents())
    return Dumped(str(path), own_info=own is not None)

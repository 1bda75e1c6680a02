"""Counts a real kernel's accesses to model-specific registers, on bare metal and on platforms that they trap into.

The machine counts those of level 0 by itself. Outside of it each of them may fault, so the kernel has an entry for it
in its table of exceptions (``asm_volatile_goto`` and ``_ASM_EXTABLE_TYPE`` in arch/x86/include/asm/msr.h), which says
where they are. The few that a kernel executes without such an entry, in the entry code of NMIs, are not seen there.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from pvops_core.errors import ImageError
from pvops_core.machine import BareMetal

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.machine import Machine, Vcpu
    from pvops_core.session import Session

SECTION: Final = "__ex_table"
_NAMES: Final = {b"\x0f\x32": "msr_reads", b"\x0f\x30": "msr_writes"}
_RECORD_SIZES: Final = (12, 8)
"""Bytes of a record: the distance of the instruction comes first. 12 since 4.6."""
_MOST: Final = 200
"""More breakpoints than this would slow the engine down."""


def msr_instructions(image: KernelImage) -> dict[int, str]:
    """Virtual address of each rdmsr and wrmsr in a kernel's table of exceptions -> the name that it is counted by."""
    section, data = image.section(SECTION), image.section_bytes(SECTION)
    if section is None or not data:
        return {}
    found = (_of_records(image, section.address, data, size) for size in _RECORD_SIZES)
    # Read with the wrong size, most distances lead to no such instruction.
    return max(found, key=len)


def _of_records(image: KernelImage, address: int, data: bytes, size: int) -> dict[int, str]:
    distances = np.frombuffer(data[: len(data) // size * size], "<i4").reshape(-1, size // 4)[:, 0]
    mask = (1 << 8 * image.pointer_size) - 1
    found = {}
    for index, distance in enumerate(distances.tolist()):
        # From the member itself (struct exception_table_entry of asm/extable.h).
        at = address + index * size + distance & mask
        try:
            name = _NAMES.get(image.read(at, 2))
        except ImageError:
            continue
        if name:
            found[at] = name
    return found


def count_msrs(session: Session) -> None:
    """Have a session's machine count them among its counts; to be called before it runs."""
    machine = session.machine
    bare = isinstance(machine.platform, BareMetal)
    places = {} if bare else msr_instructions(session.kernel.image)
    if not bare and not 0 < len(places) <= _MOST:
        return
    machine.counts.update(dict.fromkeys(_NAMES.values(), 0))
    for address, name in places.items():
        machine.break_at(address, partial(_count, machine, name), acts=False)


def _count(machine: Machine, name: str, _vcpu: Vcpu) -> None:
    machine.counts[name] += 1

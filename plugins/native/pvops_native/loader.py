"""Puts a built-in guest into memory in the order of docs/reference/guest.md: image, boot_info, GDT, page tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import MachineError
from pvops_core.guests.bootinfo import BootInfo, PlatformKind
from pvops_native import processor
from pvops_native.tables import PAGE, TableBuilder

if TYPE_CHECKING:
    from pvops_core.guests import GuestImage
    from pvops_core.machine import Machine, PhysicalMemory

TICK_HZ: Final = 100


@attrs.frozen
class Loaded:
    """Where things are.

    Attributes:
        boot_info: virtual address of the boot information.
        world: what the first processor starts in.
    """

    boot_info: int
    world: processor.World


def load(machine: Machine, guest: GuestImage, features: frozenset[int], options: Mapping[str, str]) -> Loaded:
    """Load a guest and make its first page tables.

    Raises:
        MachineError: it does not fit into memory.
    """
    end = _copy_image(machine.memory, guest)
    info_frame = -(-end // PAGE)
    gdt_frame = info_frame + 1
    _need(machine.memory, gdt_frame + 1)
    machine.memory.write(gdt_frame * PAGE, bytes(PAGE))
    limit = processor.flat_gdt(machine.memory, gdt_frame * PAGE, guest.kind.bits)
    builder = TableBuilder(machine.memory, guest.kind, gdt_frame + 1)
    frames = machine.memory.size // PAGE
    root = builder.build(frames, guest.kernel_base)
    info = BootInfo(
        platform=PlatformKind.BARE,
        nr_pages=frames,
        ncpus=len(machine.vcpus),
        tick_hz=TICK_HZ,
        root=guest.kernel_base + root,
        table_pfn=gdt_frame + 1,
        table_frames=builder.next_frame - gdt_frame - 1,
        first_pfn=builder.next_frame,
        seed=machine.seed,
        features=features,
        command_line=options.get("cmdline", ""),
    )
    machine.memory.write(info_frame * PAGE, info.pack())
    gdt = guest.kernel_base + gdt_frame * PAGE
    world = processor.first_world(guest.kind, root, gdt, limit)
    return Loaded(guest.kernel_base + info_frame * PAGE, world)


def _copy_image(memory: PhysicalMemory, guest: GuestImage) -> int:
    """Copies the loadable segments to their physical places; returns the first byte after the last."""
    end = 0
    for segment in guest.image.segments:
        _need(memory, -(-(segment.physical + segment.memory_size) // PAGE))
        data = guest.image.data[segment.offset : segment.offset + segment.file_size]
        memory.write(segment.physical, data.ljust(segment.memory_size, b"\0"))
        end = max(end, segment.physical + segment.memory_size)
    return end


def _need(memory: PhysicalMemory, frames: int) -> None:
    if frames * PAGE > memory.size:
        raise MachineError(f"the guest does not fit into {memory.size >> 20} MiB of memory")

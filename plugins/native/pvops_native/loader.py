"""Puts a built-in guest into memory in the order of docs/reference/guest.md: image, boot_info, GDT, page tables."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from pvops_core.errors import MachineError
from pvops_core.guests import BootInfo, BuiltinGuest, PlatformKind
from pvops_core.x86 import PAGE
from pvops_native import processor
from pvops_native.tables import TableBuilder

if TYPE_CHECKING:
    from pvops_core.machine import Machine, PhysicalMemory
    from pvops_native.platform import NativePlatform

TICK_HZ: Final = 100


def load_builtin(platform: NativePlatform) -> None:
    """Load the guest, make its tables, start the first processor; the others wait to be started.

    Raises:
        MachineError: it does not fit into memory.
    """
    guest, machine = platform.guest, platform.machine
    assert isinstance(guest, BuiltinGuest), "of boot protocol builtin"
    end = _copy_image(machine.memory, guest)
    info_frame = -(-end // PAGE)
    gdt_frame = info_frame + 1
    _need(machine.memory, gdt_frame + 1)
    # Zeros: descriptors that are not set must be absent.
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
        features=platform.features,
        command_line=guest.cmdline,
    )
    machine.memory.write(info_frame * PAGE, info.pack())
    boot, *others = machine.vcpus
    state = processor.first_state(guest.kind, root, guest.kernel_base + gdt_frame * PAGE, limit)
    processor.enter(boot, state, guest.entry)
    boot.set("rsi", guest.kernel_base + info_frame * PAGE)
    for vcpu in others:
        vcpu.halt()
    platform.starter = partial(start_secondary, machine, guest)


def start_secondary(machine: Machine, guest: BuiltinGuest, number: int) -> None:
    """Start a processor at the guest's entry for secondaries, in the state of the first."""
    # A number that no processor has is lost, as a start-up message to nobody is.
    if not 0 < number < len(machine.vcpus):
        return
    boot, vcpu = machine.vcpus[0], machine.vcpus[number]
    entry = guest.symbols.get("secondary_entry")
    if entry is None:
        raise MachineError("the guest has no symbol secondary_entry to start a processor at", vcpu=number)
    base, limit = boot.insn.sgdt()
    # The first one's tables and control registers: the guest has made them what it wants by now.
    processor.enter(vcpu, processor.StartState(boot.cr3, base, limit, boot.cr4), entry)
    vcpu.wake()


def _copy_image(memory: PhysicalMemory, guest: BuiltinGuest) -> int:
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

"""Puts a kernel into memory and a processor at its entry, by the 32-bit or 64-bit boot protocol.

Source: Documentation/arch/x86/boot.rst, "32-bit Boot Protocol" and "64-bit Boot Protocol". The kernel goes where it
was linked to lie (its segments' physical addresses), so it has nothing to relocate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pvops_core.errors import MachineError, UsageError
from pvops_core.guest.cmdline import command_line
from pvops_core.images.bootparams import RESERVED
from pvops_core.kinds import MachineKind
from pvops_core.x86 import PAGE
from pvops_native import apics, processor
from pvops_native.linux import acpi, pvh
from pvops_native.linux.parameters import BootParameters, Range

if TYPE_CHECKING:
    from pvops_core.guests import Kernel
    from pvops_core.images import KernelImage
    from pvops_core.machine import Machine, PhysicalMemory, Vcpu

GDT: Final = 0x1000
TABLES: Final = 0x2000
PARAMETERS: Final = 0x90000
CMDLINE: Final = 0x91000
CMDLINE_MOST: Final = 2047
"""COMMAND_LINE_SIZE of x86 is 2048, with the NUL."""
# 0x9f000 to 0xa0000 is the extended BIOS data area, and 0xe0000 to 1 MiB the BIOS.
LOW_END, BIOS, HIGH = 0x9F000, 0xE0000, 0x100000
# As the 64-bit boot protocol needs it: kernel, parameters and command line must be mapped.
_IDENTITY_GIB: Final = 4
_LARGE: Final = 0x83  # present, writable, 2 MiB
CODE, DATA = 0x10, 0x18
"""__BOOT_CS and __BOOT_DS."""
_DESCRIPTORS: Final = {
    32: (0x00CF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF),
    64: (0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF),
}
_PROTECTED: Final = 0x11
"""CR0: PE and ET."""


def load(machine: Machine, kernel: Kernel, size: int) -> None:
    """Write kernel, ramdisk, command line, ACPI tables and boot parameters.

    Args:
        machine: what is booted.
        kernel: what is loaded.
        size: bytes of memory that the kernel is told of.

    Raises:
        MachineError: the machine has more memory than a PC has below its APICs.
        UsageError: they do not fit into its memory, or the command line not into its room.
        ImageError: the image has no segments, or one below 1 MiB.
    """
    memory = machine.memory
    if memory.size > apics.IO:
        raise MachineError(f"bare metal has at most {apics.IO >> 20} MiB of memory: above are the APICs")
    end = _load_segments(memory, kernel.image, size)
    initrd = _load_initrd(memory, kernel.initrd, end, size)
    cmdline = command_line(kernel.cmdline, CMDLINE_MOST)
    memory.write(CMDLINE, cmdline + b"\0")
    parameters = BootParameters(
        # No hole is listed between: what no entry names is not memory.
        memory_map=(Range(0, LOW_END), Range(BIOS, HIGH, RESERVED), Range(HIGH, size)),
        cmdline=CMDLINE,
        cmdline_size=len(cmdline),
        initrd=initrd,
        initrd_size=len(kernel.initrd),
        rsdp=acpi.write_tables(memory, len(machine.vcpus)),
    )
    memory.write(PARAMETERS, parameters.pack())
    pvh.write_start_info(memory, parameters)


def start(vcpu: Vcpu, image: KernelImage) -> None:
    """Put a processor at the image's entry: by the PVH note of one that is no Linux, else by Linux's boot protocol.

    Raises:
        ImageError: the note is damaged.
    """
    entry = pvh.entry_of(image)
    if entry is None:
        enter(vcpu, image.entry)
        return
    vcpu.start_real_mode(0)  # whatever mode it began in, now it is in none of 64 bits
    _enter_flat(vcpu, 32)
    vcpu.set("ebx", pvh.START_INFO)
    vcpu.rip = entry


def _load_segments(memory: PhysicalMemory, image: KernelImage, size: int) -> int:
    """Copy the segments to their physical places; the first byte after the last."""
    if not image.segments:
        raise image.error("has nothing to load", field="program headers")
    # Not below: the ramdisk must not lie among firmware's tables either.
    end, whole = HIGH, memoryview(image.data)
    for number, segment in enumerate(image.segments):
        if segment.physical < HIGH:
            raise image.error(
                f"is to lie at {segment.physical:#x}, below 1 MiB, where firmware is", field=f"segment {number}"
            )
        if segment.physical + segment.memory_size > size:
            raise UsageError(
                f"the kernel reaches to {segment.physical + segment.memory_size:#x}; "
                f"{size >> 20} MiB of memory are not enough"
            )
        memory.bring(segment.physical, whole[segment.offset : segment.offset + segment.file_size])
        end = max(end, segment.physical + segment.memory_size)
    return end


def _load_initrd(memory: PhysicalMemory, initrd: bytes, kernel_end: int, size: int) -> int:
    """Copy the ramdisk to the top of memory; its physical address, 0 where there is none."""
    if not initrd:
        return 0
    # At the top, as boot loaders do: the kernel frees it as whole pages.
    start = (size - len(initrd)) & ~(PAGE - 1)
    if start < kernel_end:
        raise UsageError(f"a ramdisk of {len(initrd) >> 10} KiB does not fit beside the kernel")
    memory.bring(start, initrd)
    return start


def enter(vcpu: Vcpu, entry: int) -> None:
    """Put a processor at the entry as boot.rst says of its width: flat segments, interrupts off.

    In 64-bit mode the first 4 GiB are mapped one to one; in 32-bit mode paging is off.
    """
    # PAE, LME and CR3 before CR0.PG: the order of SDM volume 3, 9.8.5.
    if vcpu.machine.kind is MachineKind.X86_64:
        vcpu.insn.mov_to_cr(4, processor.CR4_PAE)
        vcpu.insn.wrmsr(processor.MSR_EFER, processor.EFER_LME)
        vcpu.insn.mov_to_cr(3, _identity(vcpu.machine.memory))
    _enter_flat(vcpu, vcpu.machine.kind.bits)
    # The boot parameters' address (boot.rst, both protocols).
    vcpu.set("rsi", PARAMETERS)
    vcpu.rip = entry


def _enter_flat(vcpu: Vcpu, bits: int) -> None:
    """Protected mode, and for 64 bits paging, with flat segments."""
    for selector, descriptor in zip((CODE, DATA), _DESCRIPTORS[bits], strict=True):
        vcpu.machine.memory.set_u64(GDT + selector, descriptor)
    # PG with LME makes IA-32e mode; without it only PE.
    vcpu.insn.mov_to_cr(0, processor.CR0 if bits == 64 else _PROTECTED)
    # The limit is that of the last descriptor's last byte.
    vcpu.insn.lgdt(GDT, DATA + 7)
    vcpu.set_segments(0, CODE, DATA)
    for name in ("ds", "es"):
        vcpu.load_segment(name, DATA)


def _identity(memory: PhysicalMemory) -> int:
    """Page tables that map the first 4 GiB one to one, in pages of 2 MiB; the top one's physical address."""
    top, middle, low = TABLES, TABLES + PAGE, TABLES + 2 * PAGE
    memory.set_u64(top, middle | 3)
    for gib in range(_IDENTITY_GIB):
        memory.set_u64(middle + 8 * gib, low + gib * PAGE | 3)
    pages = np.arange(_IDENTITY_GIB * 512, dtype="<u8") << np.uint64(21) | np.uint64(_LARGE)
    memory.write(low, pages.tobytes())
    return top

"""What a platform tells the guest at entry: ``struct boot_info`` of the guest's ``boot_info.h``.

The platform writes it into a page of its own and enters the guest with that page's virtual address in rsi (i386: esi).
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from typing import ClassVar

import attrs

from pvops_core.errors import UsageError
from pvops_core.guest.cmdline import command_line

MAGIC = 0x494F5650
VERSION = 1
FEATURE_WORDS = 21
COMMAND_LINE = 256
"""Bytes of the command line's field, the NUL that ends it among them."""

FORMAT = struct.Struct(f"<4IQ2I8Q{FEATURE_WORDS + 1}I{COMMAND_LINE}s")


class PlatformKind(enum.IntEnum):
    """Which drivers the guest uses for console, power, ticks and other CPUs."""

    BARE = 0
    XEN = 1
    LGUEST = 2


@attrs.frozen(kw_only=True)
class BootInfo:
    """The fields, in the struct's order.

    Attributes:
        platform: which drivers the guest is to use.
        nr_pages: 4 KiB pages of RAM from frame 0 on, all of them mapped at the kernel base.
        ncpus: vCPUs that there are.
        tick_hz: timer interrupts a second that the guest asks its timer for.
        root: virtual address of the root of the page tables in force.
        table_pfn: first frame of those page tables, which lie together.
        table_frames: how many frames they have.
        first_pfn: first frame that nothing occupies; the guest takes all from there to the end.
        seed: the run's seed.
        start_info: Xen: virtual address of ``start_info``.
        shared_info: Xen: machine address of ``shared_info``.
        mfn_list: Xen: virtual address of the machine frames by pseudo-physical frame, a pointer-sized word each.
        features: numbers of the CPU features in force, as alternatives count them (word * 32 + bit).
        command_line: words parted by spaces.
    """

    platform: PlatformKind
    nr_pages: int
    ncpus: int = 1
    tick_hz: int = 100
    root: int
    table_pfn: int
    table_frames: int
    first_pfn: int
    seed: int = 0
    start_info: int = 0
    shared_info: int = 0
    mfn_list: int = 0
    features: Iterable[int] = ()
    command_line: str = ""

    SIZE: ClassVar[int] = FORMAT.size
    """Bytes of the struct."""

    @classmethod
    def unpack(cls, data: bytes) -> BootInfo:
        """The fields of the struct's bytes.

        Raises:
            UsageError: they are none of this version.
        """
        if len(data) != FORMAT.size:
            raise UsageError(f"boot_info has {FORMAT.size} bytes, not {len(data)}")
        magic, version, size, platform, *numbers, line = FORMAT.unpack(data)
        if (magic, version, size) != (MAGIC, VERSION, FORMAT.size) or platform not in list(PlatformKind):
            raise UsageError(f"boot_info begins with {data[:16].hex(' ')}, which is none of version {VERSION}")
        words = numbers[-FEATURE_WORDS - 1 : -1]
        features = [32 * at + bit for at, word in enumerate(words) for bit in range(32) if word >> bit & 1]
        names = [field.name for field in attrs.fields(cls)][1:12]
        known = dict(zip(names, numbers, strict=False))
        text = line.partition(b"\0")[0].decode("utf-8", "surrogateescape")
        return cls(platform=PlatformKind(platform), **known, features=features, command_line=text)

    def pack(self) -> bytes:
        """The struct's bytes.

        Raises:
            UsageError: a number or the command line does not fit its field.
        """
        line = command_line(self.command_line, COMMAND_LINE - 1)
        try:
            return FORMAT.pack(
                MAGIC,
                VERSION,
                FORMAT.size,
                self.platform,
                self.nr_pages,
                self.ncpus,
                self.tick_hz,
                self.root,
                self.table_pfn,
                self.table_frames,
                self.first_pfn,
                self.seed & (1 << 64) - 1,
                self.start_info,
                self.shared_info,
                self.mfn_list,
                *self._feature_words(),
                0,
                line,
            )
        except struct.error as error:
            raise UsageError(f"boot_info: {error}") from error

    def _feature_words(self) -> list[int]:
        words = [0] * FEATURE_WORDS
        for feature in self.features:
            if not 0 <= feature < 32 * FEATURE_WORDS:
                raise UsageError(f"CPU feature {feature:#x} lies outside of the {FEATURE_WORDS} feature words")
            words[feature // 32] |= 1 << feature % 32
        return words

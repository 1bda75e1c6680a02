"""A task's bitmap of ports in its processor's TSS: native_tss_update_io_bitmap (arch/x86/kernel/process.c, since 5.5).

The processor goes by the offset in the TSS at which the bitmap begins: of the task's own, of one that is all zeroes and
opens every port, or of none, behind the TSS's limit (asm/processor.h, IO_BITMAP_OFFSET_VALID_MAP, _ALL, _INVALID).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pvops_core.guest.names import Names
    from pvops_core.machine import Vcpu

PORTS: Final = 65536
"""IO_BITMAP_BITS."""
_CURRENT: Final = ("current_task", "pcpu_hot")
_ALL_PORTS: Final = 3
"""The emulated IOPL at which a task has every port."""


class TaskBitmaps:
    """The TSS of one processor of a Linux.

    Args:
        guest: the kernel's names.
        cpu: the processor.
    """

    def __init__(self, guest: Names, cpu: Vcpu) -> None:
        self._guest = guest
        self._cpu = cpu
        self._tss = guest.per_cpu("cpu_tss_rw", cpu)
        self.start = self._tss + guest.member("tss_struct", "x86_tss")
        self._base = self._tss + guest.member("tss_struct", "x86_tss.io_bitmap_base")
        self._own = self._tss + guest.member("tss_struct", "io_bitmap.bitmap")
        self._all = self._tss + guest.member("tss_struct", "io_bitmap.mapall")

    @property
    def base(self) -> int:
        """The offset in force."""
        return self._cpu.u16(self._base)

    @property
    def none(self) -> int:
        """IO_BITMAP_OFFSET_INVALID, at which there is none: where the second of two bitmaps of one size ends."""
        # mapall follows bitmap in struct x86_io_bitmap, so its distance from bitmap is a bitmap's size.
        return self._all - self.start + self._all - self._own & 0xFFFF

    def close(self) -> None:
        """``native_tss_invalidate_io_bitmap``."""
        self._cpu.set_u16(self._base, self.none)

    def open(self) -> bool:
        """Give the task that executes its ports; whether it has any.

        It is flagged for that (TIF_IO_BITMAP) where it has a bitmap or the emulated IOPL, and only there.
        """
        cpu, guest = self._cpu, self._guest
        # 6.2 moved current into pcpu_hot, as its first member.
        symbol = next((name for name in _CURRENT if name in guest), _CURRENT[0])
        thread = cpu.word(guest.per_cpu(symbol, cpu)) + guest.member("task_struct", "thread")
        bitmap = cpu.word(thread + guest.member("thread_struct", "io_bitmap"))
        # Looked at first: at level 3 a task's own bitmap does not matter.
        if cpu.word(thread + guest.member("thread_struct", "iopl_emul")) == _ALL_PORTS:
            cpu.set_u16(self._base, self._all - self.start)
        elif bitmap:
            self._copy(bitmap)
            cpu.set_u16(self._base, self._own - self.start)
        else:
            # As tss_invalidate_io_bitmap(), which leaves the bytes: the offset alone takes them out of force.
            self.close()
            return False
        return True

    def _copy(self, bitmap: int) -> None:
        """``tss_copy_io_bitmap``, where the processor has not got it already: as much as either has any port in."""
        cpu, member = self._cpu, self._guest.member
        place = self._tss + member("tss_struct", "io_bitmap.prev_sequence")
        longest = self._tss + member("tss_struct", "io_bitmap.prev_max")
        sequence = cpu.u64(bitmap + member("io_bitmap", "sequence"))
        # Sequence numbers are never used twice, so the same one means the same bits.
        if cpu.u64(place) == sequence:
            return
        size = cpu.u32(bitmap + member("io_bitmap", "max"))
        # As far as the last task's reached: ports of that one must be closed again.
        data = cpu.read_virtual(bitmap + member("io_bitmap", "bitmap"), max(size, cpu.u32(longest)))
        cpu.write_virtual(self._own, data)
        cpu.set_u32(longest, size)
        # Last: until then the copy is not whole.
        cpu.set_u64(place, sequence)

    def limit_is_stale(self) -> bool:
        """Whether a hypervisor may have shortened the TSS's limit (``__tss_limit_invalid``); never asked twice."""
        if "__tss_limit_invalid" not in self._guest:
            return False
        place = self._guest.per_cpu("__tss_limit_invalid", self._cpu)
        stale = bool(self._cpu.u8(place))
        if stale:
            self._cpu.set_u8(place, 0)
        return stale

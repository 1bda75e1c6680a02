"""struct lguest_data: the page that guest and host share, member by member."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_lguest.host.abi import DONE
from pvops_lguest.host.kill import GuestKilledError

if TYPE_CHECKING:
    from pvops_lguest.host.abi import Abi
    from pvops_lguest.host.memory import GuestMemory

INTERRUPT_FLAG = 0x200
"""X86_EFLAGS_IF: the value of irq_enabled that means on."""


class LguestData:
    """The guest's struct lguest_data at guest-physical ``pa``, in the shape of one ABI generation."""

    def __init__(self, guest: GuestMemory, abi: Abi, pa: int) -> None:
        """Take the structure over.

        Raises:
            GuestKilledError: it does not lie within the guest's memory.
        """
        if pa < 0 or pa + abi.data.size > guest.limit:
            raise GuestKilledError(f"bad guest page {pa:#x}")
        self._guest = guest
        self._abi = abi
        self._layout = abi.data
        self.pa = pa

    # Members that change while the guest runs

    @property
    def irq_enabled(self) -> int:
        """Whether the guest takes interrupts: 0x200 or 0, as eflags has it."""
        return self._guest.u32(self.pa + self._layout.irq_enabled)

    @irq_enabled.setter
    def irq_enabled(self, value: int) -> None:
        self._guest.set_u32(self.pa + self._layout.irq_enabled, value)

    @property
    def blocked_interrupts(self) -> int:
        """``blocked_interrupts``: bitmap of interrupts the guest masked; bit 0 is the timer."""
        return self._guest.u32(self.pa + self._layout.blocked_interrupts)

    def set_cr2(self, va: int) -> None:
        """Tell the guest where its page fault was: lguest_read_cr2() reads it."""
        self._guest.set_u32(self.pa + self._layout.cr2, va)

    def set_time(self, ns: int) -> None:
        """Write the wall-clock time, given in ns since 1970, as a 32-bit timespec (write_timestamp())."""
        # struct timespec of a 32-bit kernel: its seconds wrap in 2106 when read without a sign.
        seconds, nanoseconds = divmod(ns, 1_000_000_000)
        self._guest.set_u32(self.pa + self._layout.time, seconds & 0xFFFFFFFF)
        self._guest.set_u32(self.pa + self._layout.time + 4, nanoseconds)

    def set_irq_pending(self, value: int) -> None:
        """Say that an interrupt waits for irq_enabled (0x200) or that none does (0); from 2.6.31 on."""
        if self._layout.irq_pending is not None:
            self._guest.set_u32(self.pa + self._layout.irq_pending, value)

    # The ring

    def ring_pending(self, index: int) -> bool:
        """Whether entry ``index`` of the ring holds a call that was not done yet."""
        return self._guest.read(self.pa + self._layout.hcall_status + index, 1)[0] != DONE

    def ring_entry(self, index: int) -> tuple[int, ...]:
        """Entry ``index``: the call number, then its arguments in order."""
        stride = self._abi.ring_stride
        # The ring lies in machine words of x86, little-endian as the host's.
        words = memoryview(self._guest.read(self.pa + self._layout.hcalls + index * stride, stride)).cast("I")
        call = [0] * len(words)
        for word, argument in zip(words, self._abi.ring_words, strict=True):
            call[argument] = word
        return tuple(call)

    def ring_done(self, index: int) -> None:
        """Free entry ``index``."""
        self._guest.write(self.pa + self._layout.hcall_status + index, bytes([DONE]))

    # Members that the guest fills before LGUEST_INIT

    @property
    def noirq(self) -> tuple[int, int]:
        """First and last-but-one virtual address of code where no interrupt may be delivered."""
        layout = self._layout
        return self._guest.u32(self.pa + layout.noirq_start), self._guest.u32(self.pa + layout.noirq_end)

    @property
    def kernel_address(self) -> int | None:
        """Where the guest's kernel begins; None where the generation leaves it to the launcher."""
        offset = self._layout.kernel_address
        return None if offset is None else self._guest.u32(self.pa + offset)

    @property
    def syscall_vec(self) -> int | None:
        """The guest's system-call vector; None where the generation fixes it at 0x80."""
        offset = self._layout.syscall_vec
        return None if offset is None else self._guest.u32(self.pa + offset)

    # Members that the host fills at LGUEST_INIT

    def fill(self, *, tsc_khz: int, pgdir: int, reserved: int) -> None:
        """Write what the host owes: reserve_mem, tsc_khz, and guestid or pgdir where the ABI has them.

        Args:
            tsc_khz: frequency of the time-stamp counter; 0 = do not use it.
            pgdir: guest-physical address of the first page directory.
            reserved: bytes at the top of the guest's virtual addresses that are the host's.
        """
        layout = self._layout
        # reserve_mem is how far below 4 GiB the guest's fixmap must stay: reserve_top_address() of lguest_init().
        self._guest.set_u32(self.pa + layout.reserve_mem, reserved)
        self._guest.set_u32(self.pa + layout.tsc_khz, tsc_khz)
        if layout.guestid is not None:
            # Guests are numbered in the order of their launch, and a machine has one.
            self._guest.write(self.pa + layout.guestid, bytes(2))
        if layout.pgdir is not None:
            # The guest's first 32 directory entries are copied from there before it has tables of its own.
            self._guest.set_u32(self.pa + layout.pgdir, pgdir)

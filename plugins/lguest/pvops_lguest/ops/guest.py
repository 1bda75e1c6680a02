"""What all of lguest's ops share: its variables in the guest, hypercalls at once or through the ring.

Source: lguest_data, hcall, async_hcall and lazy_hcall of drivers/lguest/lguest.c (2.6.23) and
arch/x86/lguest/boot.c (2.6.24).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, cast

import attrs

from pvops_core.errors import UsageError
from pvops_core.machine import PageFault
from pvops_lguest.host.abi import DONE, RING_SIZE, Abi, Call
from pvops_lguest.host.generation import LGUEST_DATA
from pvops_lguest.platform import LguestPlatform

if TYPE_CHECKING:
    from pvops_core.backends import Environment
    from pvops_core.guests import BuiltinGuest
    from pvops_core.machine import Vcpu

LAZY_NONE, LAZY_MMU, LAZY_CPU, LAZY_FLUSH = range(4)
"""enum paravirt_lazy_mode of 2.6.23."""

T = TypeVar("T")


@attrs.define
class Variables:
    """The static variables of lguest's part of the kernel.

    Attributes:
        lazy_mode: whether calls may be queued, and for what.
        next_call: ring entry to fill next.
        cr0: what write_cr0 was given last.
        cr3: what write_cr3 was given last; 0 until then.
    """

    lazy_mode: int = LAZY_NONE
    next_call: int = 0
    cr0: int = 0
    cr3: int = 0


class GuestSide:
    """Base of the groups of ops."""

    def __init__(self, env: Environment) -> None:
        """Take the environment; guest memory is not touched yet.

        Raises:
            UsageError: the platform is not lguest's, or the guest is a kernel with functions of its own.
        """
        if not isinstance(env.platform, LguestPlatform):
            raise UsageError("lguest's ops make hypercalls to an lguest host, which this platform is not")
        self._env = env
        self._host = env.platform
        self._memory = env.machine.memory
        if env.guest.own_functions:
            raise UsageError("lguest's ops know the built-in guest alone: a kernel under lguest is served by its own")
        self._kernel_base = cast("BuiltinGuest", self._host.guest).kernel_base
        self._variables = Variables()
        env.machine.keep(self)

    # Addresses

    @property
    def _abi(self) -> Abi:
        return self._host.state.abi

    def pa(self, va: int) -> int:
        """Guest-physical address of a virtual one in the kernel's linear mapping: ``__pa``."""
        # Linear kernel addresses only; vmalloc's would be wrong without a word, as in the kernel's own __pa.
        return (va - self._kernel_base) & 0xFFFFFFFF

    def symbol(self, name: str) -> int:
        """Guest-virtual address of a symbol.

        Raises:
            UsageError: the guest has none of that name.
        """
        try:
            return self._env.symbols[name]
        except KeyError:
            raise UsageError(f"the guest has no symbol {name}, which lguest needs") from None

    def offset(self, field: str) -> int:
        """Offset of a field of one of the guest's structures: ``thread.sp0``, ``thread.tls_array``, ``mm.pgd``.

        The guest says it by an absolute symbol, ``thread_sp0_offset``, so that its structures need not be known here.
        """
        return self.symbol(f"{field.replace('.', '_')}_offset")

    def data(self, offset: int) -> int:
        """Physical address of a member of struct lguest_data."""
        return self.pa(self.symbol(LGUEST_DATA)) + offset

    # The guest's memory

    def touching(self, access: Callable[[], T]) -> T:
        """Do an access to the guest's virtual memory, again while only the shadow tables lack it.

        Raises:
            GuestFault: the guest's own tables do not allow it.
        """
        while True:
            try:
                return access()
            except PageFault as fault:
                # Only a fault that the shadow cannot fill is the guest's own.
                if fault.address is None or not self._host.demand(fault.address, fault.error_code or 0):
                    raise

    def read(self, cpu: Vcpu, va: int, length: int) -> bytes:
        """Bytes at ``va``."""
        return self.touching(lambda: cpu.read_virtual(va, length))

    def u32(self, cpu: Vcpu, va: int) -> int:
        """The 32-bit word at ``va``."""
        return self.touching(lambda: cpu.u32(va))

    def set_u32(self, cpu: Vcpu, va: int, value: int) -> None:
        """Write the 32-bit word at ``va``."""
        self.touching(lambda: cpu.set_u32(va, value))

    # Hypercalls

    def hcall(self, cpu: Vcpu, call: Call, *args: int) -> int:
        """A hypercall, at once; before the first of all, LGUEST_INIT (lguest_init())."""
        # LGUEST_INIT is the first call that the host takes.
        if self._host.state.data is None:
            self._host.hypercall(cpu, self._host.number(Call.LGUEST_INIT), self.data(0))
        return self._host.hypercall(cpu, self._host.number(call), *args)

    def async_hcall(self, cpu: Vcpu, call: Call, *args: int) -> None:
        """Queue a hypercall in the ring; when the next entry is not free, a hypercall at once, which empties it."""
        abi, index = self._abi, self._variables.next_call
        status = self.data(abi.data.hcall_status + index)
        # The ring is full: it is 64 calls since the host was last there.
        if self._memory.u8(status) != DONE:
            self.hcall(cpu, call, *args)
            return
        values = [self._host.number(call), *args, *[0] * (abi.arguments - len(args))]
        entry = self.data(abi.data.hcalls + index * abi.ring_stride)
        # Arguments before the status: the host takes an entry as soon as that is 0.
        for place, argument in enumerate(abi.ring_words):
            self._memory.set_u32(entry + 4 * place, values[argument])
        self._memory.set_u8(status, 0)
        self._variables.next_call = (index + 1) % RING_SIZE

    def lazy_hcall(self, cpu: Vcpu, call: Call, *args: int) -> None:
        """A hypercall that may wait while the guest is in a lazy mode (boot.c)."""
        if self._variables.lazy_mode == LAZY_NONE:
            self.hcall(cpu, call, *args)
        else:
            self.async_hcall(cpu, call, *args)

    # Snapshots

    def save(self) -> tuple[int, int, int, int]:
        """The variables."""
        own = self._variables
        return own.lazy_mode, own.next_call, own.cr0, own.cr3

    def load(self, state: tuple[int, int, int, int]) -> None:
        """Go back to what :meth:`save` gave."""
        self._variables = Variables(*state)

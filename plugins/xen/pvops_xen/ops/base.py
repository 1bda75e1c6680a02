"""What all of the guest's Xen code shares: hypercalls, frame numbers, and where the guest keeps things."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from pvops_core.backends import OwnFunction
from pvops_core.errors import UsageError
from pvops_core.machine.cpu.faults import GuestFault
from pvops_core.machine.run.eventkinds import event_kind
from pvops_core.x86 import UD
from pvops_xen.ops.linux import Linux
from pvops_xen.ops.remembered import Remembered
from pvops_xen.platform import XenPlatform

if TYPE_CHECKING:
    from pvops_core.backends import Environment
    from pvops_core.machine import Vcpu
    from pvops_xen.ops.multicalls import Multicalls
    from pvops_xen.ops.remembered import Frames, Kept

_BUG: Final = event_kind(
    "bug",
    "The kernel's code under Xen would have come to BUG().",
    message="str: why",
)

_OF_BOOT: Final = ("_init", "_boot")


class XenGroup:
    """Base of each group of ops. One object is built of all groups, so what is set here is set once.

    Attributes:
        env: the core's environment.
        platform: the hypervisor.
        bits: 32 or 64.
        frames: machine and pseudo-physical frame numbers.
        calls: batches of hypercalls, one a vCPU.
        protected: pseudo-physical frames that must not be mapped writable: page tables in the making and in use,
            descriptor tables.
        pinned: those of them that are page tables under a pinned root (the kernel's PG_pinned).
        late: boot has got past the early page-table code.
        user_roots: pseudo-physical frame of a kernel root to virtual address of the user root that goes with it.
        cr3, cr0: vCPU to what write_cr3 and write_cr0 were last given.
        kickers: vCPU to the event channel that wakes it when it waits for a lock.
        waiters: lock to the vCPUs that sleep for it, in order.
        gdt, idt: vCPU to where its tables lie (the IDT with its size).
        tls: (vCPU, entry) to the TLS descriptor that its GDT holds.
    """

    def __init__(self, env: Environment) -> None:
        if not isinstance(env.platform, XenPlatform):
            raise UsageError("the xen ops need the xen platform: nobody else answers their hypercalls")
        self.env = env
        self.platform: XenPlatform = env.platform
        self.bits: int = env.machine.kind.bits
        self.guest = env.guest
        self.kickers: dict[int, int] = {}
        self.waiters: dict[int, list[int]] = {}
        self.kept: Remembered | Linux = (Linux if env.guest.own_functions else Remembered)(env, self.platform)
        self.linux = self.kept if isinstance(self.kept, Linux) else None
        self.late = self.linux is not None
        self.frames, self.calls = self.kept.frames, self.kept.calls
        self.protected: Frames = self.kept.protected
        self.pinned: Frames = self.kept.pinned
        self.user_roots: Kept[int, int] = self.kept.user_roots
        self.cr3: Kept[int, int] = self.kept.cr3
        self.cr0: Kept[int, int] = self.kept.cr0
        self.gdt: Kept[int, int] = self.kept.gdt
        self.idt: Kept[int, tuple[int, int]] = self.kept.idt
        self.tls: Kept[tuple[int, int], int] = self.kept.tls

    def leave(self, reason: str) -> None:
        """Leave the call to the guest's own function, where it has one; OwnFunction then."""
        if self.linux is not None:
            raise OwnFunction(reason)

    def in_early_boot(self, op: str) -> None:
        """Leave an op to a kernel as long as it has a function of its boot for it, which touches what boot builds.

        Raises:
            OwnFunction: it has.
        """
        if self.linux is not None and self.guest.function(op).endswith(_OF_BOOT):
            raise OwnFunction("tables in the making, early in boot")

    def mc(self, cpu: Vcpu) -> Multicalls:
        """The vCPU's batch."""
        return self.calls[cpu.index]

    def info(self, cpu: Vcpu) -> int:
        """Machine address of the vCPU's vcpu_info, wherever it lies now."""
        if self.linux is not None:
            return self.linux.vcpu_info(cpu)
        return self.platform.hv.domain.vcpus[cpu.index].info

    def symbol(self, name: str) -> int:
        """Address or value of a guest symbol; UsageError if the guest lacks it."""
        try:
            return self.env.symbols[name]
        except KeyError:
            raise UsageError(f"the guest has no symbol {name}, which the xen ops need") from None

    @staticmethod
    def below_stack(cpu: Vcpu, room: int = 256) -> int:
        """Address of so many free bytes for a hypercall's argument, aligned as compilers align a structure.

        Below the stack pointer there is nothing of the kernel's, which is built without a red zone (-mno-red-zone); and
        nothing comes there meanwhile, since no interrupt is delivered while a hook is served.
        """
        return cpu.rsp - room & ~0xF

    def argument(self, cpu: Vcpu, data: bytes, room: int = 256) -> int:
        """Put a hypercall's argument below the stack; its address."""
        address = self.below_stack(cpu, room)
        cpu.write_virtual(address, data)
        return address

    def bug(self, why: str) -> NoReturn:
        """BUG(): the kernel executes ud2."""
        self.env.machine.log.record(_BUG, message=why)
        raise GuestFault(f"BUG: {why}", vector=UD)

"""What all of the guest's Xen code shares: hypercalls, frame numbers, and where the guest keeps things."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from pvops_core.backends import OwnFunction
from pvops_core.errors import UsageError
from pvops_core.machine.cpu.faults import GuestFault
from pvops_core.machine.run.eventkinds import event_kind
from pvops_core.x86 import UD
from pvops_xen.ops.kept.linux import Linux
from pvops_xen.ops.kept.linuxtables import LinuxTables
from pvops_xen.ops.kept.remembered import Remembered
from pvops_xen.platform import XenPlatform

if TYPE_CHECKING:
    from pvops_core.backends import Environment
    from pvops_core.machine import Vcpu
    from pvops_xen.ops.multicalls import Multicalls

_BUG: Final = event_kind(
    "bug",
    "The kernel's code under Xen would have come to BUG().",
    message="str: why",
)

_OF_BOOT: Final = ("_init", "_boot")


class XenGuest:
    """A guest's Xen code, without its ops.

    Attributes:
        env: the core's environment.
        platform: the hypervisor.
        bits: 32 or 64.
        kept: what is remembered from op to op: in Python for the built-in guest, in its own memory for a kernel.
        linux: the latter.
        mappings: what that does to its mappings.
        frames, calls: its frame numbers and batches.
    """

    def __init__(self, env: Environment) -> None:
        if not isinstance(env.platform, XenPlatform):
            raise UsageError("the xen ops need the xen platform: nobody else answers their hypercalls")
        # The built-in guest keeps nothing, a kernel keeps it in its own memory.
        self.env = env
        self.platform: XenPlatform = env.platform
        self.bits: int = env.machine.kind.bits
        self.guest = env.guest
        self.kept: Remembered | Linux = (Linux if env.guest.own_functions else Remembered)(env, self.platform)
        self.linux = self.kept if isinstance(self.kept, Linux) else None
        self.mappings = LinuxTables(self, self.linux) if self.linux is not None else None
        self.frames, self.calls = self.kept.frames, self.kept.calls

    def leave(self, reason: str) -> None:
        """Leave the call to the guest's own function, where it has one; OwnFunction then."""
        if self.linux is not None:
            raise OwnFunction(reason)

    def early(self, op: str) -> LinuxTables | None:
        """A kernel's tables, as long as it has a function of its boot for an op: they are in the making."""
        # A function of its boot has another body than the one that follows it.
        if self.mappings is not None and self.guest.function(op).endswith(_OF_BOOT):
            return self.mappings
        return None

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

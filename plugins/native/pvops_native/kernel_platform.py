"""Bare metal for a real kernel: firmware's tables and the boot loader's work, then the kernel is on its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pvops_core.hookspecs import KernelPlatform
from pvops_native.linux import loader
from pvops_native.pc import Pc

if TYPE_CHECKING:
    from pvops_core.boot import Kernel
    from pvops_core.machine import Machine


class NativeKernelPlatform(Pc, KernelPlatform):
    """A PC that boots Linux."""

    console_name = "ttyS0"

    def __init__(self, machine: Machine, kernel: Kernel, options: Mapping[str, str]) -> None:
        KernelPlatform.__init__(self, machine, kernel, options)
        self.fit_out(lambda byte: self.emit(bytes((byte,))))

    def typed(self, data: bytes) -> None:
        """Over the serial line."""
        self.board.uart.receive(data)

    def idle(self) -> bool:
        """Without a timer, somebody who types may still wake the guest."""
        return super().idle() or self.wait_for_typing()

    def build(self) -> None:
        """Load the kernel and put the first processor at its entry; the others wait for ever."""
        boot, *others = self.machine.vcpus
        loader.load(self.machine.memory, self.kernel, int(self.options.get("memory", self.machine.memory.size)))
        loader.enter(boot, self.kernel.image.entry)
        for vcpu in others:
            vcpu.halt()

"""What a backend may implement: one module of hook specs per kernel group.

A hook is called with the vCPU first and then the kernel's own arguments as plain integers: pointers are
guest-virtual addresses, C ``int`` and ``long`` are signed, all else is not. An implementation names the
first argument and those of the others that it wants. Where an op's prototype changed over the years its hook has the
arguments of all, and those that the guest's table does not know are 0. A result wider or narrower than its C type is
cut to it; None counts as 0. A ``GuestFault`` raised by a hook is given to the platform as the guest's.
"""

from importlib import import_module

from pvops_core.hookspecs import apic, cpu, descriptors, init, irq, lock, mmu, pagetable, time, x86_init
from pvops_core.hookspecs.markers import PROJECT, HookDeprecationWarning, hookimpl, hookspec

MODULES = (init, x86_init, time, cpu, descriptors, irq, apic, mmu, pagetable, lock)
"""The modules of hook specs."""

__all__ = ["MODULES", "PROJECT", "HookDeprecationWarning", "hookimpl", "hookspec"]


def __getattr__(name: str) -> object:
    return import_module("pvops_core.api1.names").moved(__name__, name)

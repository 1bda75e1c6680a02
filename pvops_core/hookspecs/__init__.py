"""What a backend may implement: one module of hook specs per kernel group, and the declaration of a backend.

A hook is called with the vCPU first and then the kernel's own arguments as plain integers: pointers are
guest-virtual addresses, C ``int`` and ``long`` are signed, all else is not. An implementation names the
first argument and those of the others that it wants. Where an op's prototype changed over the years its hook has the
arguments of all, and those that the guest's table does not know are 0. A result wider or narrower than its C type is
cut to it; None counts as 0. A ``GuestFault`` raised by a hook is given to the platform as the guest's.
"""

from pvops_core.hookspecs import apic, cpu, descriptors, init, irq, lock, mmu, pagetable, time, x86_init
from pvops_core.hookspecs.backend import API, OLDEST_API, Backend, Environment, Switch
from pvops_core.hookspecs.markers import PROJECT, HookDeprecationWarning, hookimpl, hookspec
from pvops_core.hookspecs.platform import HypercallMade, KernelPlatform, Platform, Surroundings
from pvops_core.patching.fills import KernelFill

MODULES = (init, x86_init, time, cpu, descriptors, irq, apic, mmu, pagetable, lock)
"""The modules of hook specs."""

__all__ = [
    "API",
    "MODULES",
    "OLDEST_API",
    "PROJECT",
    "Backend",
    "Environment",
    "HookDeprecationWarning",
    "HypercallMade",
    "KernelFill",
    "KernelPlatform",
    "Platform",
    "Surroundings",
    "Switch",
    "hookimpl",
    "hookspec",
]

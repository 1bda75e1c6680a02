"""Where old names have gone, API 1's above all: old modules are imported as before, and old names in those still there.

Each is looked up when it is used, and whoever uses it is told the new one.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_BACKENDS: Final = "pvops_core.backends"
_PLATFORMS: Final = "pvops_core.api1.platforms"
_SESSIONS: Final = "pvops_core.api1.sessions"
_FIXTURES: Final = "pvops_core.testing.fixtures"
_RENDEZVOUS: Final = "pvops_core.livepatch.rendezvous"

_PLUGINS: Final = {
    "chains": "chains",
    "hooks": "hooks",
    "loading": "loading.loader",
    **{name: f"finding.{name}" for name in ("discovery", "found", "paths", "sources", "summary")},
    **{name: f"loading.{name}" for name in ("checking", "isolation", "proven", "trial")},
}
_MACHINE: Final = {
    "cpu": "debugregs faults realmode registers traps vcpu",
    "cpu.instructions": "control insn iret",
    "cpu.memory": "decode paging virtual",
    "cpu.model": "cpuid cpumodel features msrs",
    "cpu.segmentation": "descriptors segments stackfaults",
    "exits": "callbacks cpuslot pageend segmentlimits",
    "run": "breakpoints clock coherence eventlog gates runloop scheduler stateful watchdog written",
    "unicorn": "controlarea engine intercepts probe state",
    "unicorn.llvm": "emit guarding native spans watching",
}
"""Folder of machine -> its modules that once lay beside it."""
_PATCHING: Final = {
    "code": "clobbers disasm nops operands padding relocation template",
    "altinstructions": "alternatives altrecords capabilities cpus returns whole",
}
_LIVEPATCH: Final = {
    "payload": "area builder compiling contents description linking loading model objects trampoline",
    "rendezvous": "safepoints",
    "control": "client manager registry report script server tool",
}
_ROOMS: Final = {
    "guest": {"stacks": "leaving linux orc returns search spans tasks unwind", "types": "cprint ctypes structs"},
    "machine.cpu": {
        "instructions": "control insn iret",
        "memory": "decode intents paging virtual",
        "model": "cpuid cpumodel features msrs",
        "segmentation": "descriptors segments stackfaults",
    },
    "switchboard": {
        "builtin": "alternatives gates siteindex sitepatcher text",
        "kernel": "kernelsites ophook ophooks ownslots padding slots table",
    },
    "testing": {"fixtures": "cells choices", "reporting": "explain replay verdicts"},
}
"""Room -> its folders, and their modules that once lay beside them."""
MODULES: Final[Mapping[str, str]] = {
    "pvops_core.plugins": _BACKENDS,
    **{f"pvops_core.plugins.{name}": f"{_BACKENDS}.{home}" for name, home in _PLUGINS.items()},
    "pvops_core.hookspecs.backend": f"{_BACKENDS}.backend",
    "pvops_core.hookspecs.guest": "pvops_core.guests",
    "pvops_core.hookspecs.keyboard": f"{_BACKENDS}.keyboard",
    "pvops_core.hookspecs.platform": f"{_BACKENDS}.platform",
    "pvops_core.boot": "pvops_core.guests",
    "pvops_core.boot.kernel": "pvops_core.guests.linux.kernel",
    "pvops_core.boot.session": "pvops_core.session",
    "pvops_core.boot.text": "pvops_core.guest.text",
    **{f"pvops_core.boot.{name}": f"pvops_core.guest.{name}" for name in ("points", "space", "symbols")},
    "pvops_core.boot.tasks": "pvops_core.guest.stacks.tasks",
    **{f"pvops_core.boot.{name}": f"pvops_core.session.{name}" for name in ("trace", "verify")},
    **{f"pvops_core.boot.{name}": f"pvops_core.switchboard.kernel.{name}" for name in ("padding", "slots", "table")},
    "pvops_core.boot.hooks": "pvops_core.switchboard.kernel.ophooks",
    "pvops_core.boot.patched": "pvops_core.livepatch.kernel",
    "pvops_core.boot.patching": "pvops_core.livepatch.control.live",
    "pvops_core.boot.payload_pages": "pvops_core.livepatch.payload.pages",
    "pvops_core.boot.records": "pvops_core.patching.records",
    "pvops_core.guests.session": "pvops_core.session",
    "pvops_core.guests.patched": "pvops_core.livepatch.builtin",
    **{f"pvops_core.guests.{name}": f"pvops_core.guests.builtin.{name}" for name in ("bootinfo", "report", "build")},
    **{
        f"pvops_core.machine.{name}": f"pvops_core.machine.{folder}.{name}"
        for folder, names in _MACHINE.items()
        for name in names.split()
    },
    **{
        f"pvops_core.patching.{name}": f"pvops_core.patching.{folder}.{name}"
        for folder, names in _PATCHING.items()
        for name in names.split()
    },
    **{
        f"pvops_core.livepatch.{name}": f"pvops_core.livepatch.{folder}.{name}"
        for folder, names in _LIVEPATCH.items()
        for name in names.split()
        if name != folder  # the folder has the name that its module had
    },
    "pvops_core.livepatch.payload_pages": "pvops_core.livepatch.payload.pages",
    **{
        f"pvops_core.{room}.{name}": f"pvops_core.{room}.{folder}.{name}"
        for room, folders in _ROOMS.items()
        for folder, names in folders.items()
        for name in names.split()
    },
    "pvops_core.livepatch.act": f"{_RENDEZVOUS}.action",
    "pvops_core.livepatch.fixups": f"{_RENDEZVOUS}.extable",
    "pvops_core.livepatch.guestcode": f"{_RENDEZVOUS}.hookcalls",
    "pvops_core.patching.default": "pvops_core.patching.patchdefault",
    "pvops_core.runs.executor": "pvops_core.runs.pool",
    "pvops_core.switchboard.board": "pvops_core.switchboard.builtin.switchboard",
    "pvops_core.switchboard.implementations": "pvops_core.switchboard.implementation",
    "pvops_core.testing.lab": f"{_FIXTURES}.keptmachine",
    "pvops_core.switchboard.entering": "pvops_core.switchboard.kernel.hookentries",
    "pvops_core.switchboard.fates": "pvops_core.switchboard.builtin.siteuse",
    "pvops_core.machine.kinds": "pvops_core.kinds",
    "pvops_native.kernel_platform": "pvops_native.platform",
    "pvops_xen.hypervisor.audit": "pvops_xen.hypervisor.memory.audit",
    "pvops_xen.kernel_platform": "pvops_xen.platform",
}
"""Old module -> the one that has what it had."""

_DECLARING: Final = {
    "API": (f"{_PLATFORMS}:API", f"{_BACKENDS}.API"),
    "Backend": ("pvops_core.api1.declaring:Backend", f"{_BACKENDS}.Backend"),
}
_PLATFORM: Final = {
    "Surroundings": (f"{_PLATFORMS}:Surroundings", f"{_BACKENDS}.Platform"),
    "Platform": (f"{_PLATFORMS}:Platform", f"{_BACKENDS}.Platform"),
    "KernelPlatform": (f"{_PLATFORMS}:KernelPlatform", f"{_BACKENDS}.Platform"),
}
_BUILTIN: Final = {
    "GuestImage": ("pvops_core.guests:BuiltinGuest", "pvops_core.guests.BuiltinGuest"),
    "parse_report": (f"{_SESSIONS}:parse_report", "pvops_core.guests.Report.read"),
}
_BOOT: Final = {"BootSession": (f"{_SESSIONS}:BootSession", "pvops_core.session.Session")}
NAMES: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "pvops_core.hookspecs": {
        **_DECLARING,
        **_PLATFORM,
        **{name: (f"{_BACKENDS}:{name}",) * 2 for name in ("OLDEST_API", "Environment", "KernelFill", "Switch")},
    },
    "pvops_core.hookspecs.backend": _DECLARING,
    "pvops_core.hookspecs.platform": _PLATFORM,
    "pvops_core.hookspecs.guest": _BUILTIN,
    "pvops_core.guests": _BUILTIN,
    "pvops_core.boot": _BOOT,
    "pvops_core.boot.session": {
        **_BOOT,
        "kernel_platform": (f"{_SESSIONS}:kernel_platform", "pvops_core.session.platform_for"),
    },
    "pvops_core.boot.text": {"ImageMemory": ("pvops_core.guest:GuestText", "pvops_core.guest.GuestText")},
    "pvops_core.guests.session": {"Session": (f"{_SESSIONS}:Session", "pvops_core.session.Session")},
    "pvops_core.machine.msrs": {"ServedMsr": ("pvops_core.machine:ServedMsr", "pvops_core.machine.ServedMsr")},
    "pvops_core.testing.lab": {"Lab": (f"{_FIXTURES}.keptmachine:KeptMachine", f"{_FIXTURES}.keptmachine.KeptMachine")},
    "pvops_core.testing.patched": {
        "Patcher": ("pvops_core.testing.patched:PatchCaller", "pvops_core.testing.patched.PatchCaller")
    },
    "pvops_native.pc": {"epoch": (f"{_PLATFORMS}:epoch", "platform.settings.rtc")},
    "pvops_native.kernel_platform": {
        "NativeKernelPlatform": ("pvops_native.platform:NativePlatform", "pvops_native.platform.NativePlatform")
    },
    "pvops_xen.kernel_platform": {
        "XenKernelPlatform": ("pvops_xen.platform:XenPlatform", "pvops_xen.platform.XenPlatform")
    },
}
"""Module -> its names that are another's now, or have changed: where what they were is, and what to use instead."""


def moved(module: str, name: str) -> object:
    """What a name of API 1 stood for.

    Args:
        module: the module that had it.
        name: the name.

    Raises:
        AttributeError: it had no such name.
    """
    if name in NAMES.get(module, {}):
        home, instead = NAMES[module][name]
        place, _, attribute = home.partition(":")
    elif module in MODULES and not name.startswith("__"):
        place, attribute, instead = MODULES[module], name, f"{MODULES[module]}.{name}"
    else:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    value: object = getattr(import_module(place), attribute)
    warn(f"{module}.{name}", instead.replace(":", "."), 4)
    return value


def warn(old: str, new: str, level: int) -> None:
    """Tell whoever uses something of API 1 what to use instead."""
    from pvops_core.hookspecs.markers import HookDeprecationWarning  # noqa: PLC0415 - brings pluggy

    warnings.warn(f"{old} goes with API 3: use {new}", HookDeprecationWarning, stacklevel=level)


class _Called(ModuleType):
    """``pvops_core.guests.builtin``, which was a function and is a package."""

    def __call__(self, layout_name: str) -> object:
        warn("pvops_core.guests.builtin(...)", "pvops_core.guests.builtin_guest", 3)
        return import_module("pvops_core.guests").builtin_guest(layout_name)


def let_call(module: str) -> None:
    """Let a module be called as the function was that had its name."""
    sys.modules[module].__class__ = _Called


def old_module(name: str) -> ModuleSpec | None:
    """How a module that is no more is made; None if there was none of that name."""
    return ModuleSpec(name, _OldLoader(), is_package=True) if name in MODULES else None


class _OldLoader(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _OldModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: it has no code."""


class _OldModule(ModuleType):
    def __getattr__(self, name: str) -> object:
        return moved(self.__name__, name)

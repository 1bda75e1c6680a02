"""What one run of a kernel came to, and how its end is told from a crash."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.scenarios.run import Run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.guests import Kernel
    from pvops_core.patching.sites import SiteRecord
    from pvops_core.scenarios.acts import Value

_DYING: Final = re.compile(
    r"(?:PANIC: |BUG: |kernel BUG at |Kernel panic|Oops|Unable to handle |general protection fault|invalid opcode).*"
)
"""How kernels of all ages begin when they say that something is wrong (mm/fault.c, kernel/traps.c, panic.c)."""
_NO_ROOT: Final = "Unable to mount root fs"
"""Where a kernel without an initial ramdisk ends (init/do_mounts.c): all its own work is done."""
_LATE: Final = "timeout"
"""Why a run ended of which nothing is known: it may have gone on."""
_ENDS: Final = frozenset({"poweroff", "halted", "reboot"})


@attrs.frozen(eq=False, kw_only=True)
class KernelRun(Run):
    """What one run of a kernel came to.

    Attributes:
        messages: what the platform said itself: Xen's own console.
        passed: virtual time in ns at which it first came by each named point.
        sites: its annotated calls.
    """

    guest: Kernel
    messages: tuple[str, ...]
    passed: Mapping[str, int]
    sites: tuple[SiteRecord, ...] = attrs.field(repr=False)

    @property
    def name(self) -> str:
        """What it calls itself."""
        return f"Linux {self.guest.image.release}"

    @property
    def words(self) -> str:
        """What it first said when it was dying; empty where it did not."""
        found = _DYING.search(self.console)
        return "" if found is None or self.rootless else found[0].strip()

    @property
    def rootless(self) -> bool:
        """It came to where a kernel that was given no initial ramdisk ends."""
        return not self.guest.initrd and _NO_ROOT in self.console

    @property
    def crashed(self) -> bool:
        """It could not go on: its platform ended it, it said so itself, or it stopped before its end."""
        return not self.done and (self.stop.reason != _LATE or bool(self.words))

    @property
    def ending(self) -> str:
        """How it ended, in a few words."""
        if self.done:
            return "the kernel looks for a root file system" if self.rootless else "the kernel came to its end"
        reason = "crash" if self.crashed else self.stop.reason
        return f"{reason}: {self.words or self.stop.detail}"

    @property
    def facts(self) -> Mapping[str, Value]:
        """How far it came, and how many exceptions there were."""
        return {"exceptions": len(self.faults), "points": tuple(self.passed)}


def came_to_its_end(kernel: Kernel, console: str, reason: str, passed: Mapping[str, int]) -> bool:
    """Whether a kernel ended as it should: switched off by its init, or without a root to go on with."""
    if not kernel.initrd:
        return _NO_ROOT in console
    return reason in _ENDS and "power-off" in passed

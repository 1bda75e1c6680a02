"""Named points of the built-in guest's boot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

POINTS: Final[Mapping[str, str]] = {
    "unpatched": "patch_kernel",
    "patched": "irq_init",
    "running": "exercise",
    "finished": "report",
}
"""Name to the guest's function that begins there: own page tables but no site patched yet; patched, interrupts still
off; interrupts on and a timer ticking; processes and other vCPUs have done their work."""

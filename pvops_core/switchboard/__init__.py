"""Which implementation each op has now: resolving, dispatching and switching while the guest runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.lazily import lazily

if TYPE_CHECKING:
    from pvops_core.switchboard.builtin.switchboard import Switchboard
    from pvops_core.switchboard.findings import Switch
    from pvops_core.switchboard.implementation import Form, Implementation
    from pvops_core.switchboard.ops import KERNEL, Ops

_HOMES = {
    "KERNEL": "ops",
    "Form": "implementation",
    "Implementation": "implementation",
    "Ops": "ops",
    "Switch": "findings",
    "Switchboard": "builtin.switchboard",
}

__getattr__ = lazily(__name__, _HOMES)

__all__ = ["KERNEL", "Form", "Implementation", "Ops", "Switch", "Switchboard"]

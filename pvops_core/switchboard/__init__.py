"""Which implementation each op has now: resolving, dispatching and switching while the guest runs."""

from pvops_core.switchboard.board import Switchboard
from pvops_core.switchboard.implementations import Form, Implementation
from pvops_core.switchboard.ops import KERNEL, Ops, Switch

__all__ = ["KERNEL", "Form", "Implementation", "Ops", "Switch", "Switchboard"]

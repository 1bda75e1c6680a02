"""Which implementation each op has now: resolving, dispatching and switching while the guest runs."""

from pvops_core.switchboard.board import Switch, Switchboard
from pvops_core.switchboard.implementations import Form, Implementation

__all__ = ["Form", "Implementation", "Switch", "Switchboard"]

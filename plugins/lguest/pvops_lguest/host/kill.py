"""How the host ends a guest: lguest never returns an error code, it kills (kill_guest())."""

from __future__ import annotations

import attrs

from pvops_core.errors import MachineError


@attrs.define(eq=False)
class GuestKilledError(MachineError):
    """The guest is over: it did something grossly invalid, or asked for its end.

    Raised anywhere in the host, caught where the guest entered it, which ends the run; the message is the
    reason that its launcher would print.
    Source: kill_guest() of drivers/lguest/lg.h.

    Attributes:
        outcome: how the run ended: ``crash``, ``poweroff`` or ``reboot``.
    """

    outcome: str = "crash"

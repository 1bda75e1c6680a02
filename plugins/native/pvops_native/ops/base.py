"""What every group of native ops starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.backends import OwnFunction

if TYPE_CHECKING:
    from pvops_core.backends import Environment


class NativeGroup:
    """One kernel group of ops; the groups are mixed into `pvops_native.ops.NativeOps`.

    Attributes:
        env: what the core gives.
        guest: where the guest keeps what.
    """

    def __init__(self, env: Environment) -> None:
        self.env = env
        self.guest = env.guest

    @property
    def wide(self) -> bool:
        """Whether the guest is a 64-bit one."""
        return self.env.layout.kind.bits == 64

    def leave(self, reason: str) -> None:
        """Leave the call to the guest's own function, where it has one.

        Raises:
            OwnFunction: it has; see there for the reason.
        """
        if self.guest.own_functions:
            raise OwnFunction(reason)

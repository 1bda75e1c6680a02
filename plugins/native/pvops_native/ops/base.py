"""What every group of native ops starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pvops_core.backends import Environment


class NativeGroup:
    """One kernel group of ops; the groups are mixed into `pvops_native.ops.NativeOps`."""

    def __init__(self, env: Environment) -> None:
        self.env = env

    @property
    def wide(self) -> bool:
        """Whether the guest is a 64-bit one."""
        return self.env.layout.kind.bits == 64

"""What every group of xen's ops starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_xen.ops.guest import XenGuest
from pvops_xen.ops.tables import PageTables

if TYPE_CHECKING:
    from pvops_core.backends import Environment


class XenGroup(XenGuest):
    """One group of ops. One object is built of all groups, so this is set once.

    Attributes:
        tables: what the guest does to its page tables.
    """

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self.tables = PageTables(self)

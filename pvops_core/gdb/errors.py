"""What a packet is answered with that cannot be served."""

from __future__ import annotations

import errno
from typing import Final

import attrs

from pvops_core.errors import PvopsError

FAULT: Final = errno.EFAULT
"""No memory there: the other end is told ``E14``, as by QEMU."""
INVALID: Final = errno.EINVAL
FULL: Final = errno.ENOSPC
REFUSED: Final = errno.EPERM


@attrs.define(eq=False)
class PacketError(PvopsError):
    """A packet that is malformed, or asks for what cannot be had.

    Attributes:
        number: an errno, which is what the other end is told.
    """

    number: int = INVALID

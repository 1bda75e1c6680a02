"""Faults that the guest must get: raised by Python code that acts for it, given to the platform by its caller."""

from __future__ import annotations

import attrs

from pvops_core.errors import MachineError
from pvops_core.x86 import AC, BP, BR, DB, DE, DF, GP, MC, MF, NM, NMI, NP, OF, PF, SS, TS, UD, XM

__all__ = [
    "AC",
    "BP",
    "BR",
    "CONTRIBUTORY",
    "DB",
    "DE",
    "DF",
    "GP",
    "MC",
    "MF",
    "NM",
    "NMI",
    "NP",
    "OF",
    "PF",
    "SS",
    "TS",
    "UD",
    "WITH_ERROR_CODE",
    "XM",
    "GuestFault",
    "PageFault",
    "Reschedule",
    "general_protection",
    "undefined_instruction",
]

# Intel SDM volume 3, table 6-1: the vectors that push an error code.
WITH_ERROR_CODE = frozenset({DF, TS, NP, SS, GP, PF, AC})

# Intel SDM volume 3, table 6-4: faults that, one during the delivery of another, make a double fault.
CONTRIBUTORY = frozenset({DE, TS, NP, SS, GP})


class Reschedule(Exception):  # noqa: N818 - not an error: how a handler asks for something
    """Raised by a handler that must wait for another vCPU: called again, with all as it was, in a later slice."""


@attrs.define(eq=False)
class GuestFault(MachineError):  # noqa: N818 - the manuals call it a fault
    """An exception that the guest must get, met while Python acted for it.

    Attributes:
        vector: exception vector, 0..31.
        error_code: u32 error code; None for vectors that push none.
        address: guest-virtual address that goes into CR2, for page faults.
    """

    vector: int = GP
    error_code: int | None = None
    address: int | None = None


@attrs.define(eq=False)
class PageFault(GuestFault):
    """A page fault; ``error_code`` has P, W, U, RSVD and I (Intel SDM volume 3, figure 4-12)."""

    vector: int = PF


def general_protection(reason: str, error_code: int = 0) -> GuestFault:
    """A #GP with the selector or zero as error code (Intel SDM volume 3, 6.13 and 6.15)."""
    return GuestFault(reason, vector=GP, error_code=error_code)


def undefined_instruction(reason: str) -> GuestFault:
    """A #UD."""
    return GuestFault(reason, vector=UD)

"""What a live patch operation fails with: the errno that Xen's hypercall would give, and why."""

from __future__ import annotations

import errno as numbers
import os

import attrs

from pvops_core.errors import ImageError, MachineError, PvopsError


def errno_text(number: int) -> str:
    """``-EBUSY (Device or resource busy)``, as a person wants to read a positive errno."""
    return f"-{numbers.errorcode.get(number, number)} ({os.strerror(number)})"


@attrs.define(eq=False)
class LivepatchError(PvopsError):
    """An operation on live patches was refused; nothing has changed unless the message says so.

    Attributes:
        errno: the positive errno that Xen's hypercall gives for it (public/errno.h has Linux's numbers).
        payload: the payload concerned.
    """

    errno: int = numbers.EINVAL
    payload: str = ""

    def where(self) -> str:
        """The payload."""
        return f"livepatch {self.payload}" if self.payload else "livepatch"

    def __str__(self) -> str:
        return f"{super().__str__()}: {errno_text(self.errno)}"


@attrs.define(eq=False)
class PayloadError(ImageError):
    """A payload file is not what it should be: where in it, and the errno that its upload ends with.

    Attributes:
        errno: the positive errno that Xen's hypercall gives for it.
    """

    errno: int = numbers.EINVAL

    def __str__(self) -> str:
        return f"{super().__str__()}: {errno_text(self.errno)}"


@attrs.define(eq=False)
class PartialError(MachineError):
    """A payload would be left neither applied nor reverted: the guest cannot go on (Xen panics)."""


def errno_of(error: PvopsError) -> int:
    """The errno that stands for an error; EINVAL where it carries none."""
    # Errors of files and machines have none of their own.
    number = getattr(error, "errno", numbers.EINVAL)
    return number if isinstance(number, int) else numbers.EINVAL

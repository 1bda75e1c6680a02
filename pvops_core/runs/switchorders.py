"""Switches of ops that a command line orders."""

from __future__ import annotations

import re
from typing import Final

import attrs

from pvops_core.errors import UsageError

_ORDER: Final = re.compile(r"(?P<ops>[\w.*?\[\]!-]+)=(?P<what>[^@]+)(?:@(?P<place>[\w.,@+-]+))?\Z")


@attrs.frozen
class SwitchOrder:
    """Ops that are to be given another implementation.

    Attributes:
        ops: hook name of the op, the kernel's path of it, or a glob over either.
        what: a backend of the chain, "kernel" for the kernel's own function, ``kernel:symbol`` for another of the
            kernel's functions, or where a function is: ``module:function`` or ``file.py:function``.
        place: named point or place (:mod:`pvops_core.guest.places`) at which it is done; empty for before the guest's
            first instruction.
    """

    ops: str
    what: str
    place: str = ""

    @classmethod
    def parse(cls, text: str) -> SwitchOrder:
        """The order in ``OP=WHAT[@PLACE]``.

        Raises:
            UsageError: it is none.
        """
        match = _ORDER.match(text)
        if match is None:
            raise UsageError(f"{text!r} is not OP=WHAT@PLACE, such as write_cr3=kernel@init or irq.*=native@2ms")
        return cls(match["ops"], match["what"], match["place"] or "")

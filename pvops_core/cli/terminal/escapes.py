"""Keys behind Ctrl-A, which are pvops' own: one entry in a table for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import attrs

PREFIX: Final = b"\x01"


@attrs.frozen
class Escape:
    """What a key behind Ctrl-A does.

    Attributes:
        does: a line of the help.
        act: called when it is typed; gives what the guest gets of it.
    """

    does: str
    act: Callable[[], bytes | None]


@attrs.define(eq=False)
class Escapes:
    """Parts what is typed: what is for the guest, and what for pvops.

    Attributes:
        table: what each key behind Ctrl-A does.
        say: shows a line to whoever types.
    """

    table: dict[str, Escape]
    say: Callable[[str], None]
    _begun: bool = attrs.field(default=False, init=False)

    def __call__(self, data: bytes) -> Iterator[bytes]:
        """Give what is for the guest of what was typed, and follow each escape when what stood before it was taken."""
        kept = bytearray()
        for byte in data:
            key = bytes((byte,))
            if self._begun:
                self._begun = False
                yield bytes(kept)
                kept[:] = self._follow(key)
            elif key == PREFIX:
                self._begun = True
            else:
                kept += key
        yield bytes(kept)

    def help(self) -> None:
        """Say what there is."""
        for key, escape in self.table.items():
            self.say(f"Ctrl-A {key}  {escape.does}")

    def _follow(self, key: bytes) -> bytes:
        name = "a" if key == PREFIX else key.decode("latin-1")
        escape = self.table.get(name)
        if escape is None:
            self.say("Ctrl-A h tells what Ctrl-A does here")
            return b""
        return escape.act() or b""

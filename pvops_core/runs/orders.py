"""What a command line orders to be put in place of an op, and what came of it."""

from __future__ import annotations

import re
from typing import Final

from pvops_core.errors import UsageError
from pvops_core.records import Count, JsonRecord

_HOOK: Final = re.compile(
    r"(?P<op>[\w.]+)=(?P<function>[^@]+:[A-Za-z_][\w.]*)(?:@(?P<begin>[\w.,@+-]*?)(?:\.\.(?P<end>[\w.,@+-]+))?)?\Z"
)
_ORDER: Final = re.compile(r"(?P<ops>[\w.*?\[\]!-]+)=(?P<what>[^@]+)(?:@(?P<place>[\w.,@+-]+))?\Z")


class SwitchOrder(JsonRecord, frozen=True):
    """Ops that are to be given another implementation.

    Attributes:
        ops: The op or set of ops, as given: hook name, the kernel's path, or a glob over either.
        what: What they are given: a backend of the chain, `kernel` for the kernel's own function, `kernel:symbol` for
            another of its functions, or where a function is: `module:function` or `file.py:function`.
        place: Named point or place at which it is done; empty for before the first instruction.
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


class SwitchDone(SwitchOrder, frozen=True):
    """A `--switch` and what came of it.

    Attributes:
        made: The guest came to the place, and it was done.
        refused: Why it could not be done there; empty otherwise.
        of: Hook names of the ops.
    """

    made: bool = False
    refused: str = ""
    of: tuple[str, ...] = ()


class DumpOrder(JsonRecord, frozen=True):
    """A dump of the kernel's memory that is to be written.

    Attributes:
        file: Path of the file.
        place: Named point or place at which it is written, while the run goes on; empty for at its end.
        outcome: How the run has to end for one at its end.
    """

    file: str
    place: str = ""
    outcome: str = ""


class DumpDone(DumpOrder, frozen=True):
    """A `--dump-at` or `--dump-on` and what came of it.

    Attributes:
        made: It was written.
        refused: Why it could not be; empty otherwise.
        own_info: Its VMCOREINFO is the kernel's; else it is made of the image's symbols, since the kernel had none yet,
            and says no more than what translates addresses.
        virtual_ns: Virtual time at which it was written, in nanoseconds.
    """

    made: bool = False
    refused: str = ""
    own_info: bool = False
    virtual_ns: Count = 0


class HookOrder(JsonRecord, frozen=True):
    """A Python hook to be put into a real kernel's op.

    Attributes:
        op: The op, as ordered: hook name, or the kernel's path.
        function: Where the hook is: `module:function` or `file.py:function`.
        begin: Function of the kernel's, or named point of its boot, at which it is put in; empty for at once.
        end: The same for when it is taken out; empty for never.
    """

    op: str
    function: str
    begin: str = ""
    end: str = ""

    @classmethod
    def parse(cls, text: str) -> HookOrder:
        """The order in ``OP=MODULE:FUNCTION[@BEGIN[..END]]``.

        Raises:
            UsageError: it is none.
        """
        match = _HOOK.match(text)
        if match is None:
            raise UsageError(f"{text!r} is not OP=MODULE:FUNCTION, or OP=MODULE:FUNCTION@BEGIN..END")
        return cls(match["op"], match["function"], match["begin"] or "", match["end"] or "")


class HookDone(HookOrder, frozen=True):
    """A Python hook in an op of the kernel's.

    Attributes:
        calls: How often it was called.
        replaced: How often its result was in place of the kernel's own.
        sites: Patched sites that were put back to calls through the slot.
        originals: Functions that it stood in front of, in order.
        standing: Whether it stood at the end of the run.
    """

    calls: Count = 0
    replaced: Count = 0
    sites: Count = 0
    originals: tuple[str, ...] = ()
    standing: bool = False

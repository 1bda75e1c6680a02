"""Every error that pvops raises on purpose: one root, a few families, each carrying where it happened.

A caller that shows errors to a person needs ``str(error)`` only; a caller that acts on them reads the fields.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final, Self

import attrs


@attrs.define(eq=False)
class PvopsError(Exception):
    """Root of all errors raised on purpose.

    Attributes:
        message: what went wrong and, where there is something to do about it, what to do next.
    """

    message: str

    def __attrs_post_init__(self) -> None:
        super().__init__(self.message)

    def where(self) -> str:
        """The place the error speaks of, for the front of the printed line; empty if there is none."""
        return ""

    def __str__(self) -> str:
        place = self.where()
        return f"{place}: {self.message}" if place else self.message


def clean(text: str) -> str:
    """Text that every stream and document takes: halves of surrogate pairs, as broken file names have them, escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@attrs.define(eq=False)
class UsageError(PvopsError):
    """The caller asked for something that does not exist or does not fit together (exit code 2)."""


def printable(text: str) -> str:
    """Text on one line, safe for a terminal: what a guest, an image or a plugin says may hold line ends and escapes."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def shortened(text: str) -> str:
    """Text whose words are of a length that somebody reads: of a longer one its two ends."""
    return _LONG.sub(lambda word: f"{word[0][:_ENDS]}…{word[0][-_ENDS:]}", text)


_ENDS: Final = 120
_LONG: Final = re.compile(r"\S{512,}")
_SHOWN = 32
"""Bytes that an error shows of what it is about."""


_NAME = 80
"""Letters of a name that is not there which an error shows."""


def unknown(what: str, name: str, there: Iterable[str]) -> UsageError:
    """The error for a name that is not there, with those that are and the one that may have been meant.

    Args:
        what: what it should have been the name of.
        name: as the caller gave it.
        there: the names to choose from.
    """
    names = list(there)
    name = name if len(name) <= _NAME else f"{name[:_NAME]}…"
    meant = difflib.get_close_matches(name, names, n=1)
    guess = f" (did you mean {meant[0]}?)" if meant else ""
    return UsageError(f"no {what} {name!r}; there are {', '.join(names) or 'none'}{guess}")


@attrs.define(eq=False)
class ImageError(PvopsError):
    """A kernel image, payload or other file is not what it should be.

    Attributes:
        path: the file as the caller named it.
        offset: byte offset in the file (or in the unpacked image, which ``field`` then says), if known.
        field: the structure field or section concerned, for example ``e_shoff`` or ``.parainstructions[12].type``.
    """

    path: str = ""
    offset: int | None = None
    field: str = ""

    def where(self) -> str:
        """File, offset and field."""
        parts = [self.path or "image"]
        if self.offset is not None:
            parts.append(f"offset {self.offset:#x}")
        if self.field:
            parts.append(self.field)
        return ": ".join(parts)


@attrs.define(eq=False)
class LayoutError(ImageError):
    """A kernel's sites can be read, and the table of ops that they call through is none that is known."""


@attrs.define(eq=False)
class MachineError(PvopsError):
    """The machine was asked for something it cannot do, or the guest did something that ends the run.

    Attributes:
        vcpu: index of the vCPU concerned, if one is.
        rip: its instruction pointer at the time.
        op: the paravirt op that was being served, if any.
    """

    vcpu: int | None = None
    rip: int | None = None
    op: str = ""

    def where(self) -> str:
        """vCPU, instruction pointer and op."""
        parts = []
        if self.vcpu is not None:
            parts.append(f"vcpu {self.vcpu}")
        if self.rip is not None:
            parts.append(f"rip {self.rip:#x}")
        if self.op:
            parts.append(self.op)
        return ", ".join(parts)


@attrs.define(eq=False)
class HostError(MachineError):
    """No machine can be made on this host: its engine is another than pvops knows, or is not to be had."""


@attrs.define(eq=False)
class HostMemoryError(HostError):
    """The host refused the memory that a machine needs."""

    @classmethod
    def of(cls, what: str) -> Self:
        """The error for what was refused, with what to do next."""
        return cls(f"the host refused {what}: ask for less, or see `ulimit -v` and what memory is free")


_NO_MEMORY: Final = re.compile(
    "failed to map segment|[Cc]ould not allocate|[Cc]annot allocate memory|[Mm]emory allocation.* failed|out of memory"
    r"|\bMemoryError\b"
)


def tells_of_no_memory(text: str) -> bool:
    """Whether a library says that it gives up since memory was refused.

    Sources: glibc's elf/dl-load.c and ENOMEM, Unicorn's code_gen_alloc, OpenBLAS's memory.c, LLVM's ErrorHandling.cpp.
    """
    return _NO_MEMORY.search(text) is not None


@attrs.define(eq=False)
class MemoryAccessError(MachineError):
    """A host-side access fell outside guest-physical memory.

    Attributes:
        address: first guest-physical byte of the access.
        length: bytes asked for.
    """

    address: int = 0
    length: int = 0

    def where(self) -> str:
        """The physical range, after the usual place."""
        place = super().where()
        span = f"physical {self.address:#x}+{self.length:#x}"
        return f"{place}, {span}" if place else span


@attrs.define(eq=False)
class StructureError(UsageError):
    """Something in a guest's memory cannot be read by its type.

    Attributes:
        type: the type, as C spells it.
        member: the member of it, if one is concerned.
        address: guest-virtual address, if that is known.
    """

    type: str = ""
    member: str = ""
    address: int | None = None

    def where(self) -> str:
        """Type, member and address."""
        place = f"{self.type}.{self.member}" if self.member else self.type
        return f"{place} at {self.address:#x}" if self.address is not None else place


@attrs.define(eq=False)
class MemberError(StructureError):
    """A structure has no member of a name; as an attribute it is an AttributeError, with the same message."""


@attrs.define(eq=False)
class PatchError(PvopsError):
    """A patchlet, a patch plan or a poke was refused; guest text is as it was before.

    Attributes:
        op: the op concerned.
        address: guest-virtual address of the site, if one is concerned.
        code: the bytes refused.
    """

    op: str = ""
    address: int | None = None
    code: bytes = b""

    def where(self) -> str:
        """Op, site and bytes."""
        parts = []
        if self.op:
            parts.append(self.op)
        if self.address is not None:
            parts.append(f"site {self.address:#x}")
        if self.code:
            parts.append(f"bytes {shown(self.code)}")
        return ", ".join(parts)


def shown(code: bytes) -> str:
    """Bytes for a person to read: in hex, the first of many."""
    text = code[:_SHOWN].hex(" ")
    return f"{text} and {len(code) - _SHOWN} more" if len(code) > _SHOWN else text


@attrs.define(eq=False)
class OccupiedError(PatchError):
    """Text could not be changed: somebody executes it or returns into it, and did not come out in time.

    Attributes:
        vcpu: number of the vCPU; None of a task that sleeps.
        task: name of the task, where that is known.
        place: where it goes on: symbol and offset.
    """

    vcpu: int | None = None
    task: str = ""
    place: str = ""


@attrs.define(eq=False)
class HeldError(PatchError):
    """Text was not to be changed now: somebody has put something there and will put back what was there before.

    Attributes:
        holder: who.
    """

    holder: str = ""


@attrs.define(eq=False)
class SwitchError(PvopsError):
    """An op could not be switched; everything is as it was before.

    Attributes:
        op: the op that was to be switched.
        implementation: the implementation that was to take it over.
    """

    op: str = ""
    implementation: str = ""

    def where(self) -> str:
        """Op and implementation."""
        return f"{self.op} -> {self.implementation}" if self.op else ""


@attrs.define(eq=False)
class PluginError(PvopsError):
    """A backend plugin is broken; the others go on.

    Attributes:
        distribution: name of the installed distribution, or the path given with ``--plugin``.
        version: its version.
        entry_point: ``name = module:attribute`` as the distribution declares it.
        hook: the hook concerned, if one is.
    """

    distribution: str = ""
    version: str = ""
    entry_point: str = ""
    hook: str = ""

    def where(self) -> str:
        """Distribution, version, entry point and hook."""
        parts = []
        if self.distribution:
            parts.append(f"{self.distribution} {self.version}".strip())
        if self.entry_point:
            parts.append(f"entry point {self.entry_point}")
        if self.hook:
            parts.append(f"hook {self.hook}")
        return ", ".join(parts)

    @property
    def plugin(self) -> str:
        """What tells its plugin from others, in a line, as ``pvops_core.backends.finding.found.Found.key``."""
        return f"{self.distribution}: {self.entry_point}"


@attrs.define(eq=False)
class HookError(PluginError):
    """A plugin's code failed while a guest ran on it, or was made ready to.

    Attributes:
        vcpu: index of the vCPU that called, if one did.
        rip: its instruction pointer, with the symbol there.
        site: where the op was called from: the address that the call returns to, with its symbol; empty where none is
            known.
        frames: the traceback of the author's own frames.
    """

    vcpu: int | None = None
    rip: str = ""
    site: str = ""
    frames: str = attrs.field(default="", repr=False)

    def where(self) -> str:
        """As of every plugin; then vCPU, RIP and call site."""
        parts = [super().where()]
        if self.vcpu is not None:
            parts.append(f"vcpu {self.vcpu}")
        if self.rip:
            parts.append(f"rip {self.rip}")
        if self.site:
            parts.append(f"called from {self.site}")
        return ", ".join(filter(None, parts))

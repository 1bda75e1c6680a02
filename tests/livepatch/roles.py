"""Payloads in the roles of Xen's own, for the built-in guest: of C, and the same made without a compiler."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pvops_core.livepatch.payload import compiling
from pvops_core.livepatch.payload.builder import ABSOLUTE, RELATIVE, PayloadBuilder, Reference
from pvops_core.livepatch.payload.compiling import Replacement, build_payload, size_in
from pvops_core.livepatch.payload.contents import HOST_DEPENDS
from pvops_core.livepatch.payload.model import HookPhase

if TYPE_CHECKING:
    from pvops_core.guests import BuiltinGuest

EXAMPLES = compiling.INCLUDE.parent / "examples"
REPORT, NOTHING, EXPECTED, WRONG = "report", "memset", 8, b"\xcc" * 6
_SIGNED_32 = 11


class Assembler:
    """Makes payloads by hand.

    Args:
        guest: the built-in guest.
        host: its build-id.
    """

    def __init__(self, guest: BuiltinGuest, host: bytes) -> None:
        self.guest = guest
        self.host = host
        self.role = ""

    def make(self, role: str, depends: bytes) -> bytes:
        """The payload of a role; its symbols are its own."""
        self.role = role
        made = PayloadBuilder(self.guest.kind, build_id=role.encode(), depends=depends, host=self.host)
        _ROLES[role](self, made)
        return made.build()

    def greeting(self, made: PayloadBuilder, text: str, expected: bytes | None = None) -> None:
        """``report`` says something else."""
        self.says(made, f"{self.role}_report", text)
        made.replace(REPORT, f"{self.role}_report", old_size=size_in(self.guest.image, REPORT), expected=expected)

    def hook(
        self, made: PayloadBuilder, phase: HookPhase, text: str, result: int = 0, applied: int | None = None
    ) -> None:
        """A hook that says something, perhaps marks the first function, and returns."""
        self.says(made, f"{self.role}_{phase.value}", text, result, applied)
        made.hook(phase, f"{self.role}_{phase.value}")

    def says(self, made: PayloadBuilder, name: str, text: str, result: int = 0, applied: int | None = None) -> None:
        """A function."""
        made.data(f"{name}_text", f"guest: platform: {text}\n\0".encode(), writable=False)
        back = b"\xb8" + (result & 0xFFFFFFFF).to_bytes(4, "little") + b"\xc3"
        if made.bits == 64:
            # mov rax, [rdi + 32]; mov byte [rax + 1], applied
            mark = b"" if applied is None else bytes.fromhex("488b4720c64001") + bytes([applied])
            # sub rsp, 8; mov rdi, text; xor eax, eax; call printk; add rsp, 8; mov eax, result; ret
            call = bytes.fromhex("4883ec08 48c7c700000000 31c0 e800000000 4883c408")
            refer = [(7, f"{name}_text", _SIGNED_32, 0), (14, "printk", RELATIVE[64], -4)]
        else:
            # mov eax, [eax + 24]; mov byte [eax + 1], applied
            mark = b"" if applied is None else bytes.fromhex("8b4018c64001") + bytes([applied])
            # push text; call printk; add esp, 4; …
            call = bytes.fromhex("6800000000 e800000000 83c404")
            refer = [(1, f"{name}_text", ABSOLUTE[32], 0), (6, "printk", RELATIVE[32], -4)]
        places = [Reference(len(mark) + at, symbol, kind, addend) for at, symbol, kind, addend in refer]
        made.text(name, mark + call + back, places)

    @property
    def begins(self) -> bytes:
        """How ``report`` begins."""
        return self.guest.image.read(self.guest.symbols[REPORT], EXPECTED)


def _hello(by: Assembler, made: PayloadBuilder) -> None:
    by.greeting(made, "Hello World")
    by.hook(made, HookPhase.LOAD, "hello is being applied")
    by.hook(made, HookPhase.UNLOAD, "hello is being reverted")
    made.modinfo(LIVEPATCH_RULEZ="1", role="hello")


def _nop(by: Assembler, made: PayloadBuilder) -> None:
    size = size_in(by.guest.image, NOTHING)
    made.replace(NOTHING, None, old_size=size, new_size=min(31, size - 1))


def _unbound(by: Assembler, made: PayloadBuilder) -> None:
    by.greeting(made, "Nobody's World")
    del made.sections[HOST_DEPENDS]


def _prepost(by: Assembler, made: PayloadBuilder) -> None:
    by.greeting(made, "Prepost World")
    for phase, text in (
        (HookPhase.PREAPPLY, "about to apply"),
        (HookPhase.POSTAPPLY, "applied"),
        (HookPhase.PREREVERT, "about to revert"),
        (HookPhase.POSTREVERT, "reverted"),
    ):
        by.hook(made, phase, text)


def _veto(by: Assembler, made: PayloadBuilder) -> None:
    by.greeting(made, "Veto World")
    by.hook(made, HookPhase.PREAPPLY, "not with me", -errno.EPERM)


def _action(by: Assembler, made: PayloadBuilder) -> None:
    by.greeting(made, "Action World")
    by.hook(made, HookPhase.APPLY, "marked as applied", applied=1)
    by.hook(made, HookPhase.REVERT, "marked as reverted", applied=0)


def _nofunc(by: Assembler, made: PayloadBuilder) -> None:
    by.hook(made, HookPhase.APPLY, "nothing to apply")
    by.hook(made, HookPhase.REVERT, "nothing to revert")


def _marker(by: Assembler, made: PayloadBuilder) -> None:
    by.greeting(made, "Marker World")
    for phase in HookPhase:
        if phase not in {HookPhase.APPLY, HookPhase.REVERT}:
            by.hook(made, phase, f"marker {phase.value}")


def _noapply(by: Assembler, made: PayloadBuilder) -> None:
    by.greeting(made, "Noapply World")
    by.hook(made, HookPhase.APPLY, "will not apply", -errno.EINVAL)


def _norevert(by: Assembler, made: PayloadBuilder) -> None:
    by.greeting(made, "Norevert World")
    by.hook(made, HookPhase.REVERT, "will not revert", -errno.EINVAL)
    by.hook(made, HookPhase.POSTREVERT, "still applied")


_ROLES: Mapping[str, Callable[[Assembler, PayloadBuilder], None]] = {
    "hello": _hello,
    "bye": lambda by, made: by.greeting(made, "Bye World"),
    "replace": lambda by, made: by.greeting(made, "Replaced World"),
    "nop": _nop,
    "unbound": _unbound,
    "prepost": _prepost,
    "veto": _veto,
    "action": _action,
    "nofunc": _nofunc,
    "marker": _marker,
    "noapply": _noapply,
    "norevert": _norevert,
    "expecting": lambda by, made: by.greeting(made, "Replaced World", by.begins),
    "mistaken": lambda by, made: by.greeting(made, "Replaced World", WRONG),
}
_SOURCES = {"unbound": "replace", "expecting": "replace", "mistaken": "replace"}


class Compiler:
    """Builds the examples. Takes what an :class:`Assembler` takes."""

    def __init__(self, guest: BuiltinGuest, host: bytes) -> None:
        self.guest = guest
        self.host = host

    def make(self, role: str, depends: bytes) -> bytes:
        """The payload of a role."""
        source = EXAMPLES / f"{_SOURCES.get(role, role)}.c"
        expected = {"expecting": Assembler(self.guest, self.host).begins, "mistaken": WRONG}.get(role, b"")
        image = self.guest.image
        if role == "nofunc":
            replaced = []
        elif role == "nop":
            replaced = [Replacement(NOTHING, "")]
        else:
            new = {"hello": "new_report", "replace": "replaced_report"}.get(source.stem, f"{source.stem}_report")
            replaced = [Replacement(REPORT, new, expected)]
        sizes = {each.old: size_in(image, each.old) for each in replaced}
        host = None if role == "unbound" else self.host
        return build_payload(source, replaced, sizes, self.guest.kind, depends=depends, host=host)

"""A booted kernel whose user space says what /proc/version shows, and payloads that change it."""

from __future__ import annotations

from pathlib import Path

from pvops_core.backends import chain, load_backends
from pvops_core.guests import Kernel
from pvops_core.images import KernelImage, load_image
from pvops_core.livepatch.kernel import live_patches
from pvops_core.livepatch.payload.builder import ABSOLUTE, RELATIVE, PayloadBuilder, Reference
from pvops_core.livepatch.payload.compiling import size_in
from pvops_core.livepatch.payload.model import Command
from pvops_core.livepatch.payload.pages import FRAMES
from pvops_core.session import Session
from tests.ramdisk import WATCHING, with_init

SHOW = "version_proc_show"
TROUBLE = ("WARNING:", "BUG:", "Oops", "Call Trace", "multicall(s) failed", "general protection")
SIGNED_32 = 11
"""R_X86_64_32S."""
_SECONDS = 60


def replacing(made: PayloadBuilder, image: KernelImage, name: str, code: bytes, refer: list[Reference]) -> bytes:
    """A payload that puts code in the place of what shows /proc/version."""
    made.text(name, code, refer)
    made.replace(SHOW, name, old_size=size_in(image, SHOW))
    return made.build()


def showing(made: PayloadBuilder, image: KernelImage, text: str) -> bytes:
    """A payload by which /proc/version shows a text."""
    made.data(f"{text}_text", f"{text}\n\0".encode(), writable=False)
    wide = made.bits == 64
    # mov rsi or edx, text; call seq_puts; xor eax, eax; ret
    code = bytes.fromhex("48c7c600000000" if wide else "ba00000000") + bytes.fromhex("e80000000031c0c3")
    words = Reference(3, f"{text}_text", SIGNED_32) if wide else Reference(1, f"{text}_text", ABSOLUTE[32])
    call = Reference(8 if wide else 6, "seq_puts", RELATIVE[made.bits], -4)
    return replacing(made, image, f"{text}_show", code, [words, call])


class Live:
    """One machine, booted until user space has looked at /proc/version once."""

    def __init__(
        self, kernel: Path, ramdisk: str, backend: str, cmdline: str, vcpus: int, init: bytes = WATCHING
    ) -> None:
        self.image = load_image(kernel)
        backends = load_backends().backends
        initrd = with_init(kernel.with_name(ramdisk), init)
        self.session = Session(
            Kernel(self.image, initrd, cmdline), chain(backends[backend], backends), vcpus=vcpus, tool_frames=FRAMES
        )
        self.machine = self.session.machine
        self.patches = live_patches(self.session)
        self.registry, self.guest = self.patches.registry, self.patches.guest
        self.heard = 0
        self.hear("seen Linux version")

    def hear(self, text: str) -> None:
        """Run until the console says something that it has not said yet when this was last asked."""
        console, wanted = self.session.platform.console, text.encode()
        self.session.platform.until = wanted
        if console.find(wanted, self.heard) < 0:
            stop = self.session.run(max_seconds=_SECONDS)
            assert stop.reason == "until", (
                f"{stop}\n{console[-2000:].decode(errors='replace')}\n{self.patches.messages}"
            )
        self.heard = console.find(wanted, self.heard) + len(wanted)

    def act(self, name: str, command: Command, *, timeout_ns: int = 0) -> int:
        """An action, and time for it; its result."""
        self.registry.action(name, command, timeout_ns=timeout_ns)
        while self.registry.work is not None:
            assert self.machine.run(max_ns=50_000).reason in {"timeout", "until"}
        return self.registry.get(name).rc

    def builder(self, name: str, depends: bytes = b"") -> PayloadBuilder:
        build_id = self.guest.build_id
        return PayloadBuilder(self.machine.kind, build_id=name.encode(), depends=depends or build_id, host=build_id)

    def upload(self, name: str, depends: bytes = b"") -> None:
        """A payload by which /proc/version shows its name."""
        self.registry.upload(name, showing(self.builder(name, depends), self.image, name))

    def sound(self) -> None:
        """The kernel has not complained."""
        console = self.session.platform.console.decode(errors="replace")
        assert not [word for word in TROUBLE if word in console]

    def rounds(self, count: int) -> None:
        """Apply, replace and revert, over one payload and over two, and look each time whether user space sees it."""
        text = self.session.text_sha256()
        for name, depends in (("Hello", b""), ("Bye", b"Hello"), ("Other", b"")):
            self.upload(name, depends)
        for number in range(count):
            assert self.act("Hello", Command.APPLY) == 0
            self.hear("seen Hello")
            if number % 2:
                assert self.act("Bye", Command.APPLY) == 0
                self.hear("seen Bye")
            assert self.act("Other", Command.REPLACE) == 0
            self.hear("seen Other")
            assert self.act("Other", Command.REVERT) == 0
            self.hear("seen Linux version")
        self.sound()
        assert self.session.text_sha256() == text

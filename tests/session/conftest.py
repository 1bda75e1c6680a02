"""Small kernels, written in memory: they begin where a boot protocol leaves a real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from pvops_core.backends import load_backends
from pvops_core.guests import Kernel
from pvops_core.images import load_image
from pvops_core.session import Session
from pvops_core.testing.images import ElfBuilder

if TYPE_CHECKING:
    from pvops_core.backends import Backend

BASE = 0x1000000
MakeElf = Callable[..., bytes]
Boot = Callable[..., Session]


@pytest.fixture(scope="session")
def backends() -> dict[str, Backend]:
    return dict(load_backends().backends)


@pytest.fixture
def elf() -> MakeElf:
    """Makes a kernel of instructions in hex; it lies where it is linked, physically too."""

    def make(code: str, bits: int = 64, base: int = BASE) -> bytes:
        builder = ElfBuilder(bits, base)
        builder.symbol("start", builder.text(".text", bytes.fromhex(code)))
        return builder.build()

    return make


@pytest.fixture
def boot(backends: dict[str, Backend], elf: MakeElf) -> Iterator[Boot]:
    """Makes a session on bare metal of instructions in hex."""
    with ExitStack() as stack:

        def make(code: str, bits: int = 64, *, initrd: bytes = b"", cmdline: str = "", **settings: int) -> Session:
            kernel = Kernel(load_image(elf(code, bits)), initrd, cmdline)
            session = Session(kernel, (backends["native"],), memory=32 << 20, **settings)  # type: ignore[misc]
            return stack.enter_context(session)

        yield make

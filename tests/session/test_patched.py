"""What a kernel must be to be live-patched, shown with small ones."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import UsageError
from pvops_core.guests import Kernel
from pvops_core.images import load_image
from pvops_core.livepatch.errors import LivepatchError
from pvops_core.livepatch.kernel import live_patches
from pvops_core.livepatch.payload.pages import FRAMES
from pvops_core.session import Session

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from tests.session.conftest import MakeElf

SPIN = "ebfe"


def session(elf: MakeElf, backends: dict[str, Backend], bits: int, mib: int, *, livepatch: bool = True) -> Session:
    kernel = Kernel(load_image(elf(SPIN, bits)))
    return Session(kernel, (backends["native"],), memory=mib << 20, tool_frames=FRAMES if livepatch else 0)


@pytest.mark.parametrize("bits", [32, 64])
def test_it_is_told_of_its_own_memory_only(elf: MakeElf, backends: dict[str, Backend], bits: int) -> None:
    with session(elf, backends, bits, 32) as made, session(elf, backends, bits, 32, livepatch=False) as plain:
        assert made.machine.memory.size - plain.machine.memory.size >= 4 << 20
        assert made.machine.memory.read(0x90000, 0x1000) == plain.machine.memory.read(0x90000, 0x1000)
        assert min(made.platform.spare_frames(2)) >= 32 << 20


def test_one_on_page_tables_that_are_not_its_own_is_to_be_asked_again(
    elf: MakeElf, backends: dict[str, Backend]
) -> None:
    """The boot loader's map everything, the addresses for payloads too."""
    with session(elf, backends, 64, 32) as made:
        patches = live_patches(made)
        made.run(max_ns=1000)
        before = made.machine.memory.read(0, 32 << 20)
        with pytest.raises(LivepatchError, match="not finished its page tables") as refused:
            patches.registry.upload("early", b"\x7fELF")
        assert refused.value.errno == errno.EAGAIN
        assert made.machine.memory.read(0, 32 << 20) == before


def test_one_without_type_information_tells_of_no_tasks(elf: MakeElf, backends: dict[str, Backend]) -> None:
    with session(elf, backends, 64, 32) as made:
        guest = live_patches(made).guest
        assert not guest.tasks()
        assert guest.stack_size == 16384


def test_who_cannot_be_patched_is_told_why(elf: MakeElf, backends: dict[str, Backend]) -> None:
    with session(elf, backends, 64, 32, livepatch=False) as made, pytest.raises(UsageError, match="tool_frames"):
        live_patches(made)
    with session(elf, backends, 32, 900) as made, pytest.raises(UsageError, match="872 MiB are the most"):
        live_patches(made)

"""A guest: a program for the machine, the built-in one or a kernel's image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.guest.text import GuestText
    from pvops_core.images import KernelImage
    from pvops_core.kinds import MachineKind


class Guest(Protocol):
    """What a session and a platform need to know of a guest before it runs."""

    @property
    def boot_protocol(self) -> str:
        """How it is loaded: the key of :attr:`pvops_core.backends.Platform.loaders`."""

    @property
    def image(self) -> KernelImage:
        """Its file."""

    @property
    def cmdline(self) -> str:
        """Its command line."""

    @property
    def kind(self) -> MachineKind:
        """The machine that it is best run on."""

    @property
    def kinds(self) -> tuple[MachineKind, ...]:
        """All machines that it can run on, the best first."""

    @property
    def symbols(self) -> Mapping[str, int]:
        """Guest-virtual addresses by name; none where the image has none that can be read."""

    @property
    def default_memory(self) -> int:
        """Bytes of memory that it gets unless told otherwise."""

    @property
    def slice_blocks(self) -> int:
        """Blocks of code in a time slice of one vCPU."""

    @property
    def stack_size(self) -> int:
        """Bytes of a kernel stack, to which it is aligned."""

    def direct_map(self, text: GuestText) -> int:
        """Guest-virtual address at which its kernel sees all of its memory, one to one, as it says in memory now."""

    @property
    def text_range(self) -> tuple[int, int]:
        """Virtual addresses of the first byte of its text and of the first after it.

        Raises:
            ImageError: the image does not say.
        """

    def physical(self, va: int) -> int:
        """Guest-physical address that a byte of its image is linked to lie at, given its virtual one.

        Raises:
            PvopsError: it is none of the image's.
        """

"""What a saved session must be loaded into: the same guest, backend, machine, sources and engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pvops_core.saved.errors import other

if TYPE_CHECKING:
    from pathlib import Path


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that decides how a session goes on, beside its states. Two that are equal are of sessions made alike.

    Attributes:
        guest: ``kernel``, or ``builtin`` and the layout.
        kernel: SHA-256 of the unpacked image, in hex.
        initrd: SHA-256 of the initial ramdisk; empty for none.
        cmdline: the command line.
        backends: the backend in force, its base, its base's base.
        settings: of the platform, each with what it is.
        machine: kind of machine.
        cpus: number of vCPUs.
        memory: bytes of machine memory.
        seed: of the run.
        slice: mean length of a time slice in runs of straight code.
        counted: instructions are counted.
        tool_frames: page frames besides, of which the guest does not know.
        engine: the engine, its version and how its CPU state lies.
        sources: SHA-256 over the sources of pvops and of each plugin that has a part, by package.
    """

    guest: str
    kernel: str
    initrd: str
    cmdline: str
    backends: tuple[str, ...]
    settings: dict[str, str]
    machine: str
    cpus: int
    memory: int
    seed: int
    slice: int
    counted: bool
    tool_frames: int
    engine: str
    sources: dict[str, str]

    def check(self, here: Key, path: Path | str) -> None:
        """Compare with the key of a session here.

        Raises:
            SavedError: they differ; it names the first field that does, and both values.
        """
        for field in self.__struct_fields__:
            saved, own = getattr(self, field), getattr(here, field)
            if saved == own:
                continue
            if isinstance(saved, dict):
                name = next(name for name in [*saved, *own] if saved.get(name) != own.get(name))
                raise other(str(path), f"{field}[{name}]", saved.get(name), own.get(name))
            raise other(str(path), field, saved, own)

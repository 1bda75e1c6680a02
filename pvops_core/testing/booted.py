"""Booted real kernels for tests: each boots once, up to a place, and goes back to its snapshot for every test."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from pvops_core.backends import chain
from pvops_core.guests import Kernel, read_kernel
from pvops_core.images import machine_of
from pvops_core.session import Session, hosted
from pvops_core.session.calls import LIMIT
from pvops_core.testing.fixtures.choices import Choices
from pvops_core.testing.fixtures.lab import StandingMachine
from pvops_core.testing.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.backends import Backend
    from pvops_core.switchboard.kernel.ophook import OpHook
    from pvops_core.testing.effect import Effect

KEPT: Final = 2
"""Booted kernels kept at a time: each takes as much memory as its guest has."""
PLACE: Final = "init"
"""Where tests begin unless they say otherwise: all is set up, interrupts are on, a kernel thread is about to become the
first process."""
MAX_SECONDS: Final = 300


@attrs.frozen
class Recipe:
    """What to boot, and how far.

    Attributes:
        image: path of the kernel.
        backend: name of the backend.
        initrd: path of the initial ramdisk; empty for one that has nothing but an executable ``/init``, which is
            enough to come to the beginning of the first process.
        cmdline: command line; the platform's console is added where it names none.
        place: a function of the kernel's or a named point of its boot.
        vcpus: number of virtual CPUs.
        seed: of the run.
        choices: settings of the backend's platform.
    """

    image: str
    backend: str
    initrd: str = ""
    cmdline: str = ""
    place: str = PLACE
    vcpus: int = 1
    seed: int = 0
    choices: Choices = attrs.field(factory=Choices)


class BootedKernel(StandingMachine):
    """A booted kernel, standing at a place; the fixture ``kernel``.

    Args:
        recipe: what to boot.
        backends: all that are loaded.

    Raises:
        PvopsError: it cannot be booted, or did not come to the place.
    """

    def __init__(self, recipe: Recipe, backends: Mapping[str, Backend]) -> None:
        links = chain(backends[recipe.backend], backends)
        kernel = read_kernel(recipe.image, recipe.initrd or None, recipe.cmdline)
        words = recipe.cmdline.split()
        if not any(word.startswith("console=") for word in words):
            words.append(f"console={hosted(kernel.boot_protocol, kernel.kinds, links)[0].console_name}")
        kernel = Kernel(kernel.image, kernel.initrd or SMALLEST_RAMDISK, " ".join(words))
        chosen = dict(recipe.choices.settings)
        session = Session(kernel, links, vcpus=recipe.vcpus, seed=recipe.seed, options=chosen)
        try:
            vcpu = session.run_to(recipe.place, max_seconds=MAX_SECONDS)
            if session.table is not None:
                assert not session.hooks.standing  # made here, it belongs to the snapshot
            title = f"{recipe.image} on {recipe.backend} from {recipe.place!r}"
            super().__init__(session, vcpu, title)
        except BaseException:
            session.close()
            raise

    @property
    def symbols(self) -> Mapping[str, int]:
        """Guest-virtual addresses of its symbols."""
        return self.session.kernel.image.symbols

    @cached_property
    def _meter(self) -> Meter:
        return Meter(self.session)

    def call(self, function: str | int, *arguments: int, interrupts: bool = False, max_ns: int = LIMIT) -> Effect:
        """Call one of its C functions, by symbol or address; see :meth:`~pvops_core.testing.meter.Meter.measure`."""
        callee = self._meter.calls.function(function, *arguments)
        return self._meter.measure(self.vcpu, callee, interrupts=interrupts, max_ns=max_ns)

    def op(self, op: str, *arguments: int, interrupts: bool = False, max_ns: int = LIMIT) -> Effect:
        """Call what an op's slot holds, with arguments as in the op's C prototype; the rest as for :meth:`call`."""
        callee = self._meter.calls.op(op, *arguments)
        return self._meter.measure(self.vcpu, callee, interrupts=interrupts, max_ns=max_ns)

    def struct(self, type: str, address: int | str) -> Any:  # noqa: ANN401 - what C has there
        """A structure in its memory; see :meth:`pvops_core.guest.types.structs.Structures.struct`."""
        return self.session.struct(type, address)

    def per_cpu(self, symbol: str, cpu: int = 0, type: str = "") -> Any:  # noqa: ANN401 - what C has there
        """A per-CPU variable; see :meth:`pvops_core.guest.types.structs.Structures.per_cpu`."""
        return self.session.per_cpu(symbol, cpu, type)

    def use(self, *patterns: str, backend: str = "") -> tuple[str, ...]:
        """Let a backend's own hooks serve ops, all or those named; see :meth:`pvops_core.switchboard.Ops.use`."""
        return self.session.ops.use(*patterns, backend=backend, by="test")

    def hook(self, op: str, function: Callable[..., int | None]) -> OpHook:
        """Put a Python hook in front of an op; see :meth:`pvops_core.switchboard.kernel.ophooks.OpHooks.install`."""
        return self.session.hooks.install(op, function)


def find_image(given: str) -> Path | None:
    """A kernel image: the file, or of a folder the first ``vmlinu*`` by name, 64-bit ones first; None for none."""
    path = Path(given)
    if not path.is_dir():
        return path if path.is_file() else None
    files = [file for file in sorted(path.glob("vmlinu*")) if file.is_file()]
    return min(files, key=lambda file: machine_of(file) != "x86_64", default=None)


def _cpio(name: str, mode: int, data: bytes) -> bytes:
    """One member of an archive in the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


SMALLEST_RAMDISK: Final = _cpio("init", 0o100755, struct.pack("<I", 0)) + _cpio("TRAILER!!!", 0, b"")

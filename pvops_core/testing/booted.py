"""Booted real kernels for tests: each boots once, up to a place, and goes back to its snapshot for every test."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pvops_core.images import machine_of
from pvops_core.session.calls import LIMIT
from pvops_core.testing.fixtures.keptmachine import StandingMachine
from pvops_core.testing.meter import Meter
from pvops_core.testing.recipes import PLACE, SMALLEST_RAMDISK, Recipe, standing

__all__ = ["KEPT", "PLACE", "SMALLEST_RAMDISK", "BootedKernel", "Recipe", "find_image"]

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.backends import Backend
    from pvops_core.saved.shelf import Shelf
    from pvops_core.switchboard.kernel.ophook import OpHook
    from pvops_core.testing.effect import Effect

KEPT: Final = 2
"""Booted kernels kept at a time: each takes as much memory as its guest has."""


class BootedKernel(StandingMachine):
    """A booted kernel, standing at a place; the fixture ``kernel``.

    Args:
        recipe: what to boot.
        backends: all that are loaded.
        shelf: where booted kernels are kept for other processes; None for nowhere.
        fresh: boot it, whatever is kept.

    Raises:
        PvopsError: it cannot be booted, or did not come to the place.
    """

    def __init__(
        self, recipe: Recipe, backends: Mapping[str, Backend], shelf: Shelf | None = None, *, fresh: bool = False
    ) -> None:
        session, vcpu = standing(recipe, backends, shelf, fresh=fresh)
        try:
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

"""The fills of the backends that a verb was asked for, kept from harming the host: their code is somebody else's."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import PvopsError, UsageError, unknown

if TYPE_CHECKING:
    from pvops_core.backends import Found, Loaded
    from pvops_core.images import KernelImage
    from pvops_core.ops import Layout
    from pvops_core.patching.fills import KernelFill


@attrs.frozen
class GuardedFill:
    """A plugin's fill whose failures are errors of the plugin, and whose answers are what they should be.

    Attributes:
        fill: the plugin's own.
        source: where it comes from, for the errors.
    """

    fill: KernelFill
    source: Found

    def slots(self, kernel: KernelImage, layout: Layout, cpus: int) -> Mapping[str, str | int | None]:
        """What the plugin's fill says; PluginError if it fails or says anything but paths and targets."""
        with self._guard("slots"):
            slots: object = self.fill.slots(kernel, layout, cpus)
        if not isinstance(slots, Mapping):
            raise self.source.error(f"its kernel's slots gave a {type(slots).__name__}, not a mapping", "slots")
        top = 1 << 8 * layout.pointer_size
        for path, target in slots.items():
            address = isinstance(target, int) and not isinstance(target, bool) and 0 <= target < top
            if not isinstance(path, str) or not (address or target is None or isinstance(target, str)):
                message = f"its kernel's slots gave {target!r} for {path!r}: no symbol, address or None"
                raise self.source.error(message, "slots")
        return slots

    def features(self, kernel: KernelImage, cpus: int) -> frozenset[str]:
        """What the plugin's fill says; PluginError if it fails or gives anything but names."""
        with self._guard("features"):
            names: object = self.fill.features(kernel, cpus)
        if isinstance(names, Collection) and not isinstance(names, str | bytes):
            found = frozenset(name for name in names if isinstance(name, str))
            if len(found) == len(names):
                return found
        raise self.source.error(f"its kernel's features gave {names!r}, not names", "features")

    @contextmanager
    def _guard(self, method: str) -> Iterator[None]:
        try:
            yield
        except PvopsError:
            raise
        except (Exception, SystemExit) as failure:
            message = f"its kernel's {method} raised {type(failure).__name__}: {failure}"
            raise self.source.error(message, method) from failure


def find_fills(name: str, loaded: Loaded) -> list[GuardedFill]:
    """How a backend and its bases fill a kernel's table, the innermost base first.

    Args:
        name: of the backend.
        loaded: the backends there are.

    Raises:
        UsageError: there is no such backend, or nothing says how it fills a table.
    """
    from pvops_core.backends import chain  # noqa: PLC0415 - heavy

    if name not in loaded.backends:
        raise unknown("backend", name, sorted(loaded.backends))
    links = chain(loaded.backends[name], loaded.backends)
    if all(link.kernel is None for link in links):
        raise UsageError(
            f"backend {name!r} does not say how a kernel fills its table: neither it nor its base has a kernel"
        )
    return [GuardedFill(link.kernel, loaded.sources[link.name]) for link in reversed(links) if link.kernel is not None]

"""Runs that show which ops of backends have other code in their place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.backends.choices import choices_for
from pvops_core.cli.options import runoptions
from pvops_core.cli.options.workerlimits import worker_limits
from pvops_core.runs.plan import Workload, machine_kinds
from pvops_core.runs.pool import execute
from pvops_core.runs.progress import ProgressListener
from pvops_core.runs.wire import Request

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pvops_core.backends import Loaded
    from pvops_core.errors import PluginError
    from pvops_core.runs.cell import Cell

SECONDS = 60
"""What a run may take: a guest that hangs says nothing of its ops."""


def unused(loaded: Loaded, plugins: Sequence[str]) -> Iterator[PluginError]:
    """A note for each op that has other code at its sites, with the layouts in which it has.

    A run that cannot be, or that fails, tells of nothing: what its guest came to is for ``run`` and the suite.

    Args:
        loaded: the backends.
        plugins: what was given with ``--plugin``.
    """
    requests = [Request(cell, tuple(plugins), without=loaded.broken, max_seconds=SECONDS) for cell in _cells(loaded)]
    found: dict[tuple[str, str, str], list[str]] = {}
    limits = worker_limits(SECONDS, runoptions.DEFAULT_MEMORY << 20)
    with ProgressListener(len(requests)) as listener:
        observations = execute(requests, listener=listener, limits=limits)
    for seen in observations:
        for op, use in seen.own.items():
            if use.over:
                found.setdefault((seen.cell.backend, op, use.told), []).append(seen.cell.layout)
    for (backend, op, told), layouts in found.items():
        yield loaded.sources[backend].error(f"{told} ({', '.join(layouts)})", op)


def _cells(loaded: Loaded) -> Iterator[Cell]:
    """A run for each layout of each backend that overrides something."""
    for name, backend in loaded.backends.items():
        if backend.base is None:
            continue
        kinds = machine_kinds(backend, loaded.backends)
        workload = Workload("", 0, 1, runoptions.DEFAULT_MEMORY << 20, choices_for([name], {}, loaded.backends))
        for layout, kind in runoptions.builtin_layouts().items():
            if kind in kinds:
                yield workload.cell(name, layout, kind)

"""Which machines a test is run on: its backend's kinds, cut by the test's markers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.backends import chain
from pvops_core.errors import UsageError
from pvops_core.guests import LAYOUTS as GUESTS
from pvops_core.kinds import MachineKind
from pvops_core.ops import LAYOUTS
from pvops_core.testing.choices import Choices

if TYPE_CHECKING:
    import pytest

    from pvops_core.backends import Backend
    from pvops_core.ops import Layout

USUAL: Final = {MachineKind.I386: "2.6.24", MachineKind.PAE: "2.6.24-pae", MachineKind.X86_64: "6.1-64"}
"""The layout that a test is run on where it names none."""
POINT: Final = "patched"


@attrs.frozen
class MachineCell:
    """One machine for one test.

    Attributes:
        backend: name of the backend.
        layout: name of the guest's layout; empty if the test cannot be run on this backend.
        vcpus: how many vCPUs.
        point: where in the guest's boot the test begins.
        cmdline: the guest's command line.
        why_not: why it cannot be run.
        choices: settings of the backend's platform.
    """

    backend: str
    layout: str
    vcpus: int = 1
    point: str = POINT
    cmdline: str = ""
    why_not: str = ""
    choices: Choices = attrs.field(factory=Choices)

    def __str__(self) -> str:
        if self.why_not:
            return f"{self.backend}-none"
        return f"{self.backend}-{self.layout}-{self.vcpus}cpu"

    def chosen(self, choices: Choices) -> MachineCell:
        """The same machine with these settings."""
        return attrs.evolve(self, choices=choices, why_not=self.why_not or choices.why_not)


def capabilities(backend: Backend, backends: Mapping[str, Backend]) -> frozenset[str]:
    """What a backend can do: its own words, those of its chain, and ``kind.NAME`` for every kind it can be."""
    links = chain(backend, backends)
    kinds = next((link.kinds for link in links if link.platform is not None), frozenset())
    own = backend.kinds & kinds if backend.kinds else kinds
    return frozenset().union(*(link.capabilities for link in links), (f"kind.{kind.value}" for kind in own))


def cells(test: pytest.Item, names: Iterable[str], backends: Mapping[str, Backend]) -> list[MachineCell]:
    """The machines for a test; for a backend that has none, one that says why.

    Args:
        test: the test's definition, for its markers.
        names: the backends to be tested.
        backends: all that are loaded.
    """
    return [cell for name in names for cell in _cells(test, backends[name], backends)]


def _cells(test: pytest.Item, backend: Backend, backends: Mapping[str, Backend]) -> list[MachineCell]:
    has = capabilities(backend, backends)
    needs = set(_words(test, "pvops_needs"))
    if missing := sorted(needs - has):
        return [MachineCell(backend.name, "", why_not=f"needs {', '.join(missing)}")]
    layouts = [layout for layout in _layouts(test) if f"kind.{layout.kind.value}" in has]
    if not layouts:
        kinds = ", ".join(sorted({f"kind.{layout.kind.value}" for layout in _layouts(test)})) or "no layout with its op"
        return [MachineCell(backend.name, "", why_not=f"needs {kinds}")]
    point = next(iter(_closest(test, "pvops_at")), POINT)
    cmdline = " ".join(_closest(test, "pvops_cmdline"))
    counts = [int(number) for number in _closest(test, "pvops_vcpus")] or [1]
    return [MachineCell(backend.name, layout.name, count, point, cmdline) for layout in layouts for count in counts]


def _layouts(test: pytest.Item) -> Iterator[Layout]:
    globs = _closest(test, "pvops_layouts")
    kinds = set(_closest(test, "pvops_kinds"))
    ops = set(_words(test, "pvops_ops"))
    unknown = kinds - {kind.value for kind in MachineKind}
    if unknown:
        raise UsageError(f"pvops_kinds: no kind {', '.join(sorted(unknown))}")
    for name in GUESTS:
        layout = LAYOUTS[name]
        wanted = any(fnmatchcase(name, glob) for glob in globs) if globs else _usual(layout, ops)
        if wanted and (not kinds or layout.kind.value in kinds) and all(op in layout for op in ops):
            yield layout


def _usual(layout: Layout, ops: Iterable[str]) -> bool:
    """The usual layout of its kind, or one that has an op that the usual one has not."""
    usual = LAYOUTS[USUAL[layout.kind]]
    return layout is usual or any(op not in usual for op in ops)


def _words(test: pytest.Item, marker: str) -> Iterator[str]:
    """What all markers of a kind say: needs add up."""
    for found in test.iter_markers(marker):
        yield from map(str, found.args)


def _closest(test: pytest.Item, marker: str) -> list[str]:
    """What the marker closest to the test says: it takes the place of its module's."""
    found = test.get_closest_marker(marker)
    return [str(word) for word in found.args] if found else []

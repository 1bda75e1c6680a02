"""Distributions made on disk, as an installer would leave them: a dist-info folder beside a module."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
import pytest

ONLY_HERE = {"PVOPS_DISABLE_PLUGINS": "pvops-*", "PVOPS_PLUGIN_TIMEOUT": "0"}
"""An environment in which the backends of this tree are left out, and the others are loaded without a trial."""

HEAD = """
from pvops_core.backends import API, Backend, Platform
from pvops_core.hookspecs import hookimpl
from pvops_core.kinds import MachineKind
from pvops_core.patching.patchlets import Patchlet

def _nothing(self, *arguments): ...

METHODS = {name: _nothing for name in Platform.__abstractmethods__}
Bare = type("Bare", (Platform,), METHODS | {"loaders": {"builtin": _nothing}})

def make(name, **more):
    return Backend(**{"name": name, "api": API, "platform": Bare, "kinds": frozenset({MachineKind.X86_64})} | more)
"""


@attrs.frozen
class Shelf:
    """A folder on the import path that distributions are put into."""

    folder: Path

    def put(
        self,
        distribution: str,
        code: str,
        *,
        entries: Mapping[str, str] | None = None,
        version: str = "1.2.3",
        entry_points: bytes | None = None,
    ) -> str:
        """Install a distribution whose module has its name and this code, and give the module's name."""
        module = distribution.replace("-", "_")
        (self.folder / f"{module}.py").write_text(HEAD + textwrap.dedent(code))
        info = self.folder / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        named = {"good": f"{module}:backend"} if entries is None else entries
        lines = "".join(f"{name} = {value}\n" for name, value in named.items())
        (info / "entry_points.txt").write_bytes(entry_points or f"[pvops.backends]\n{lines}".encode())
        importlib.invalidate_caches()
        return module


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    before = set(sys.modules)
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield Shelf(folder)
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(str(tmp_path)):
            del sys.modules[name]

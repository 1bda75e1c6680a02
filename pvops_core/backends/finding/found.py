"""A plugin that was found but not imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import PluginError

if TYPE_CHECKING:
    from pathlib import Path


@attrs.frozen
class Found:
    """A plugin as its metadata describes it.

    Attributes:
        name: the entry point's name, which is to be the backend's; empty if only the import will tell.
        distribution: name of the distribution, or the text given with ``--plugin``.
        version: the distribution's version; empty if it has none.
        value: ``module:attribute``.
        file: source file to load the module from, if it is not importable by name.
        folders: folders to be put on the import path first.
        problem: why it cannot be loaded, if that is known already.
        instead: the installed version of the same distribution that it stands in for; empty for none.
    """

    name: str
    distribution: str
    version: str
    value: str
    file: Path | None = None
    folders: tuple[Path, ...] = ()
    problem: str = ""
    instead: str = ""

    @property
    def entry_point(self) -> str:
        """The entry point as a distribution declares it: ``name = module:attribute``."""
        return f"{self.name} = {self.value}" if self.name else self.value

    @property
    def key(self) -> str:
        """What tells it from others, in a line."""
        return f"{self.distribution}: {self.entry_point}"

    def error(self, message: str = "", hook: str = "") -> PluginError:
        """An error that names this plugin."""
        return PluginError(
            message, distribution=self.distribution, version=self.version, entry_point=self.entry_point, hook=hook
        )

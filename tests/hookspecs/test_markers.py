"""The markers of hook specs and their implementations."""

from __future__ import annotations

import pluggy
import pytest

from pvops_core.hookspecs.markers import PROJECT, HookDeprecationWarning, hookimpl, hookspec


class Specs:
    """A hook of today, and one that will go."""

    @hookspec(firstresult=True)
    def stays(self, cpu: int) -> int:
        """Stays."""
        raise NotImplementedError

    @hookspec(warn_on_impl=HookDeprecationWarning("use stays"))
    def goes(self) -> None:
        """Goes."""


class Kept:
    @hookimpl
    def stays(self, cpu: int) -> int:
        return cpu + 1


class Old:
    @hookimpl
    def goes(self) -> None:
        """Still there."""


def test_specs_and_implementations_meet_and_what_goes_is_told() -> None:
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Specs)
    manager.register(Kept())
    assert manager.hook.stays(cpu=1) == 2
    with pytest.warns(HookDeprecationWarning, match="use stays"):
        manager.register(Old())

"""A platform that overrides a method and does not call its base's is told which one, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest
from pvops_native import NativePlatform

from pvops_core.errors import HookError
from pvops_core.session import Session

if TYPE_CHECKING:
    from pvops_core.backends import Backend


class WithoutInit(NativePlatform):
    def __init__(self, machine: Any, guest: Any, settings: Any = None) -> None:  # noqa: ANN401 - it does nothing with them
        del machine, guest, settings


class WithoutBuild(NativePlatform):
    def build(self) -> None:
        self.roots = 0


def begin(platform: type[NativePlatform], layout: str, backends: dict[str, Backend]) -> None:
    mine = attrs.evolve(backends["native"], name="mine", platform=platform)
    Session.of_builtin(layout, "mine", backends={"mine": mine}).close()


@pytest.mark.parametrize("layout", ["2.6.24", "2.6.24-pae", "6.1-64"])
def test_what_is_forgotten_is_named(layout: str, backends: dict[str, Backend]) -> None:
    with pytest.raises(HookError, match=r"WithoutBuild.build left no guest: .* call super\(\).build\(\)"):
        begin(WithoutBuild, layout, backends)
    with pytest.raises(HookError, match=r"WithoutInit.__init__ left the platform without its machine: call super"):
        begin(WithoutInit, layout, backends)

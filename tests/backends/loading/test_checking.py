"""Hooks and arguments that will go: whoever implements them is warned, and is loaded all the same."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from pvops_core import hookspecs
from pvops_core.backends import load_backends
from pvops_core.hookspecs import HookDeprecationWarning, hookspec, reference
from pvops_core.hookspecs.specs import specs
from tests.backends.conftest import ONLY_HERE, Shelf

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

OPS = """
class Ops:
    def __init__(self, env): ...
    @hookimpl
    {body}
backend = make('good', ops=Ops)
"""


@pytest.fixture
def old_hooks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two more hooks: one that is deprecated, and one with an argument that is."""
    module = ModuleType("pvops_core.hookspecs.old")

    @hookspec(firstresult=True, warn_on_impl=HookDeprecationWarning("old_op goes with API 2: use new_op"))
    def old_op(cpu: Vcpu) -> None:
        """Do as in the past."""

    @hookspec(firstresult=True, warn_on_impl_args={"mode": HookDeprecationWarning("mode goes with API 2")})
    def new_op(cpu: Vcpu, mode: int) -> None:
        """Do it."""

    module.old_op, module.new_op = old_op, new_op  # type: ignore[attr-defined]
    specs.cache_clear()
    monkeypatch.setattr(hookspecs, "MODULES", (*hookspecs.MODULES, module))
    yield
    specs.cache_clear()


@pytest.mark.usefixtures("old_hooks")
@pytest.mark.parametrize(
    ("body", "warned"),
    [
        ("def old_op(self, cpu): ...", "old_op goes with API 2: use new_op"),
        ("def new_op(self, cpu, mode): ...", "mode goes with API 2"),
        ("def new_op(self, cpu): ...", ""),
    ],
)
def test_a_deprecated_hook_is_warned_of_and_works(shelf: Shelf, body: str, warned: str) -> None:
    shelf.put("the-old-one", OPS.format(body=body))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert list(load_backends(environ=ONLY_HERE).backends) == ["good"]
    assert [str(warning.message) for warning in caught] == ([warned] if warned else [])
    assert all(warning.filename.endswith("the_old_one.py") for warning in caught)


@pytest.mark.usefixtures("old_hooks")
def test_the_reference_says_what_is_deprecated() -> None:
    assert "\n\nDeprecated: old_op goes with API 2: use new_op\n" in reference.page()
    assert "\n\nDeprecated: mode goes with API 2\n" in reference.page()

"""pvops' own modules are imported as they are, and what lasts is no matter of the garbage collector."""

from __future__ import annotations

import gc
import importlib
import sys
import weakref
from collections.abc import Iterator

import pytest

from pvops_core.testing.thrift import PlainModules, lasting


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    there, installed = gc.isenabled(), PlainModules in sys.meta_path
    yield
    gc.unfreeze()
    (gc.enable if there else gc.disable)()
    (PlainModules.install if installed else PlainModules.remove)()


class Circle:
    def __init__(self) -> None:
        self.me = self


def test_no_garbage_is_looked_for_inside_and_none_is_missed_before() -> None:
    before, told = Circle(), []
    weakref.finalize(before, told.append, "before")
    del before
    with lasting():
        assert told == ["before"]
        assert not gc.isenabled()
        made = Circle()
    assert gc.isenabled()
    assert made.me not in gc.get_objects()


def test_who_had_it_off_has_it_off_afterwards() -> None:
    gc.disable()
    with pytest.raises(KeyError), lasting():
        raise KeyError
    assert not gc.isenabled()


@pytest.mark.parametrize("name", ["pvops_core.errors", "pvops_core.cachefolder"])
def test_own_modules_are_found(name: str) -> None:
    importlib.import_module(name)
    spec = PlainModules.find_spec(name, sys.modules[name.rpartition(".")[0]].__path__)
    assert spec is not None
    assert spec.origin == sys.modules[name].__file__


@pytest.mark.parametrize("name", ["json", "pvops_core", "pvops_corex.errors", "pvops_core.testing.conformance.laws"])
def test_others_and_what_has_tests_are_pytests(name: str) -> None:
    assert PlainModules.find_spec(name, None) is None


def test_it_is_there_while_pytest_is(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it="""
        import importlib, sys
        def test_it(pytestconfig):
            importlib.import_module("pvops_core.compare.columns")
            assert "rewrite" not in type(sys.modules["pvops_core.compare.columns"].__loader__).__module__
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
    PlainModules.install()
    PlainModules.install()
    assert sys.meta_path.count(PlainModules) == 1
    PlainModules.remove()
    PlainModules.remove()
    assert PlainModules not in sys.meta_path

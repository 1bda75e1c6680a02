"""Names of API 1: each is found where it was, is what it has become, and tells what to use instead."""

from __future__ import annotations

import subprocess
import sys
import warnings
from importlib import import_module

import pytest

from pvops_core import backends, guests, session
from pvops_core.api1.finder import OldModules
from pvops_core.api1.names import MODULES, NAMES
from pvops_core.hookspecs import HookDeprecationWarning


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_that_is_no_more_gives_the_new_ones_names(module: str) -> None:
    old, new = import_module(module), import_module(MODULES[module])
    name = next(name for name in vars(new) if not name.startswith("__") and name not in NAMES.get(module, {}))
    with pytest.warns(HookDeprecationWarning, match=f"{module}.{name} goes with API 3: use {MODULES[module]}"):
        assert getattr(old, name) is getattr(new, name)


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in NAMES.items() for name in names])
def test_a_name_that_was_there_is_there(module: str, name: str) -> None:
    with pytest.warns(HookDeprecationWarning, match=f"^{module}.{name} goes with API 3: use [a-z]"):
        getattr(import_module(module), name)


def test_the_warning_is_the_users() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        exec("from pvops_core.boot import read_kernel", there := {"__name__": __name__, "__file__": __file__})
    assert there["read_kernel"] is guests.read_kernel
    assert {one.filename for one in seen} == {"<string>"}, "the file that says so, not one of ours"


@pytest.mark.parametrize("module", ["pvops_core.hookspecs", "pvops_core.guests", "pvops_core.boot", "pvops_native.pc"])
def test_what_was_never_there_is_not_there(module: str) -> None:
    with pytest.raises(AttributeError, match="nothing_like_it"):
        getattr(import_module(module), "nothing_like_it")  # noqa: B009 - it is not there
    with pytest.raises(ImportError):
        import_module("pvops_core.boot.nothing_like_it")


@pytest.mark.filterwarnings("ignore::pvops_core.hookspecs.HookDeprecationWarning")
def test_what_was_the_built_in_guests_function_is_one() -> None:
    old = guests.builtin("2.6.24")  # type: ignore[operator]
    assert old == guests.builtin_guest("2.6.24")
    made = import_module("pvops_core.guests.session").Session.builtin(
        "2.6.24", "native", backends=backends.load_backends().backends, cmdline="quiet", memory=4 << 20
    )
    with made:
        assert isinstance(made, session.Session)
        assert (made.guest.cmdline, made.builtin) == ("quiet", made.guest)
        assert made.run(max_ns=500_000_000).reason == "poweroff"
        parse_report = import_module("pvops_core.guests").parse_report
        assert parse_report(made.guest, made.read) == made.report()


def test_nothing_of_it_is_loaded_that_is_not_used() -> None:
    code = "import sys, pvops_core; print(*sorted(name for name in sys.modules if name.startswith('pvops_core')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["pvops_core", "pvops_core.api1", "pvops_core.api1.finder"]
    assert sum(isinstance(finder, OldModules) for finder in sys.meta_path) == 1


def test_what_a_session_called_whereabouts_is_where() -> None:
    with session.Session.of_builtin("2.6.24", "native", backends=backends.load_backends().backends) as made:
        with pytest.warns(HookDeprecationWarning, match="Session.whereabouts goes with API 3: use Session.where"):
            old = made.whereabouts()
        assert old == made.where()

"""The pytest plugin: options, markers, and fixtures that give every test a machine of its own.

Nothing heavy is imported before a test asks for one of the fixtures.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import pytest

from pvops_core.testing.thrift import PlainModules, lasting

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.backends.loading.loader import Loaded
    from pvops_core.machine import Machine, Vcpu
    from pvops_core.session import Session
    from pvops_core.testing.booted import BootedKernel, Recipe
    from pvops_core.testing.call import Caller
    from pvops_core.testing.fixtures.cells import MachineCell
    from pvops_core.testing.fixtures.choices import Choices
    from pvops_core.testing.fixtures.keptmachine import KeptMachine, Pool
    from pvops_core.testing.patched import PatchCaller
    from pvops_core.testing.textpage import TextPage

MARKERS: Final = {
    "pvops_backends(*names)": "for these backends only: run on each where the command line names none, skip on others",
    "pvops_kinds(*names)": "run on these kinds of machine only: i386, pae, x86_64",
    "pvops_layouts(*globs)": "run on the guests of these layouts; by default on the newest of each kind",
    "pvops_vcpus(*numbers)": "run with each of these numbers of vCPUs; by default with one",
    "pvops_ops(*names)": "run on layouts that have all these ops only",
    "pvops_needs(*capabilities)": "skip on a backend that has not all these capabilities",
    "pvops_at(point)": "begin there in the guest's boot: entry, unpatched, patched (the default), running, finished; "
    "a real kernel's at a function or a named point, by default init",
    "pvops_cmdline(*words)": "the guest's command line",
    "pvops_set(**settings)": "settings of the backend's platform, in place of those of the command line; skip on a "
    "backend that does not have one",
}
_LOADED: Final[pytest.StashKey[Loaded]] = pytest.StashKey()
_CHAINS: Final[pytest.StashKey[dict[tuple[str, ...], Loaded]]] = pytest.StashKey()
_MACHINES: Final[pytest.StashKey[Pool[MachineCell, KeptMachine]]] = pytest.StashKey()
_KERNELS: Final[pytest.StashKey[Pool[Recipe, BootedKernel]]] = pytest.StashKey()
_USED: Final[pytest.StashKey[KeptMachine | BootedKernel]] = pytest.StashKey()
"""Whose machine a test has."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("pvops", "paravirtualisation backends")
    group.addoption("--pvops-backend", metavar="NAMES", help="the backends to test, parted by commas")
    group.addoption("--pvops-plugin", metavar="PATH", action="append", default=[], help="load a backend from there too")
    group.addoption("--pvops-kernel", metavar="FILE", help="the kernel for tests that boot one, or a folder of some")
    group.addoption("--pvops-initrd", metavar="FILE", help="its ramdisk; by default one that has only a place for init")
    fresh = "boot kernels for tests anew, whatever earlier runs have kept of them"
    group.addoption("--pvops-fresh", action="store_true", help=fresh)
    group.addoption("--pvops-ops", metavar="NAMES", help="conformance suite: try these ops only, parted by commas")
    group.addoption("--pvops-layouts", metavar="GLOBS", help="conformance suite: these layouts only, parted by commas")
    smoke = "conformance suite: try only what the backend itself implements, and whole guests"
    group.addoption("--pvops-smoke", action="store_true", help=smoke)
    group.addoption("--pvops-ktap", metavar="FILE", help="write the verdict on every op there, as KTAP")
    told = "setting of the backends' platforms, for those that have it; may be repeated"
    group.addoption("--pvops-set", metavar="NAME=VALUE", action="append", default=[], help=told)
    group.addoption("--pvops-seed", metavar="N", type=int, default=0, help="seed of every machine (default: 0)")
    parser.addini("pvops_backend", "the backend to test where nothing else names one", default="native")
    parser.addini("pvops_plugins", "backends to load from these paths too", type="paths")


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known, and what is loaded from folders importable by the tests, wherever pytest was called."""
    given = _given(config)
    if given:
        from pvops_core.backends.finding.paths import folders_of  # noqa: PLC0415 - only who names some pays for it

        sys.path[:0] = [folder for text in given for folder in folders_of(text) if folder not in sys.path]
    PlainModules.install()
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    if hasattr(config, "workerinput"):  # of pytest-xdist
        sys.breakpointhook = _no_breakpoint


def pytest_plugin_registered(plugin: object) -> None:
    """Where tests run pytest in this process, have imported what such runs would forget."""
    if getattr(plugin, "__name__", "") == "_pytest.pytester":
        from pvops_core.testing.pytesters import import_all  # noqa: PLC0415 - only those pay for it

        import_all()


def _no_breakpoint(*_arguments: object, **_names: object) -> None:
    pytest.fail("breakpoint(): a worker of pytest-xdist has no terminal; run this test with -n 0", pytrace=False)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close the machines."""
    PlainModules.remove()
    if _MACHINES in config.stash:
        config.stash[_MACHINES].close()
    if _KERNELS in config.stash:
        config.stash[_KERNELS].close()


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say which backend and seed, if anybody asked."""
    backends, seed = config.getoption("--pvops-backend"), config.getoption("--pvops-seed")
    return f"pvops: backend {backends or 'by default'}, seed {seed}" if backends or seed else None


def _names(test: pytest.Item, config: pytest.Config) -> list[str]:
    """The backends to be tested: those of the command line, the test's own, or the project's."""
    if given := config.getoption("--pvops-backend"):
        return [name for name in given.split(",") if name]
    marker = test.get_closest_marker("pvops_backends")
    return list(marker.args) if marker else [config.getini("pvops_backend")]


def _given(config: pytest.Config) -> list[str]:
    """Paths that backends are to be loaded from."""
    return [*config.getoption("--pvops-plugin"), *map(str, config.getini("pvops_plugins"))]


def loaded_backends(config: pytest.Config) -> Loaded:
    """All backends there are, loaded once in a run of pytest."""
    if _LOADED not in config.stash:
        from pvops_core.backends import load_backends  # noqa: PLC0415 - only tests of backends pay for it

        config.stash[_LOADED] = load_backends(_given(config))
    return config.stash[_LOADED]


def _chains(config: pytest.Config, names: list[str]) -> Loaded:
    """Some backends and their bases; all there are where one is missing, or they are loaded by now."""
    kept = config.stash.setdefault(_CHAINS, {})
    if _LOADED not in config.stash and tuple(names) not in kept:
        with lasting():
            import_module("pvops_core.testing.booted")  # as a fixture of the tests that want these will, but in here
            from pvops_core.backends.loading.loader import load_chains  # noqa: PLC0415 - likewise

            kept[tuple(names)] = load_chains(names, _given(config))
    found = kept.get(tuple(names))
    return found if found is not None and set(names) <= set(found.backends) else loaded_backends(config)


def _not_for(test: pytest.Item, name: str) -> str:
    """Why a test is not for a backend; empty if it is."""
    marker = test.get_closest_marker("pvops_backends")
    return "" if marker is None or name in marker.args else f"for {', '.join(marker.args)} only"


def _choices(test: pytest.Item, names: list[str], config: pytest.Config, loaded: Loaded) -> dict[str, Choices]:
    """The settings that a test is run with, on each backend."""
    from pvops_core.errors import PvopsError  # noqa: PLC0415 - likewise
    from pvops_core.testing.fixtures.choices import choices_of  # noqa: PLC0415

    marker = test.get_closest_marker("pvops_set")
    try:
        return choices_of(names, config.getoption("--pvops-set"), marker.kwargs if marker else {}, loaded.backends)
    except PvopsError as error:
        raise pytest.UsageError(f"{test.nodeid}: {error}") from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once on each machine that it and the backends can have."""
    if not {"pvops_cell", "pvops_case", "pvops_recipe"} & set(metafunc.fixturenames):
        return
    test = metafunc.definition
    names = _names(test, metafunc.config)
    booted = "pvops_recipe" in metafunc.fixturenames
    loaded = _chains(metafunc.config, names) if booted else loaded_backends(metafunc.config)
    if missing := [name for name in names if name not in loaded.backends]:
        reasons = "".join(f"\n  {error}" for error in loaded.errors)
        there = ", ".join(sorted(loaded.backends))
        raise pytest.Collector.CollectError(f"no backend {', '.join(missing)}; there are {there}{reasons}")
    choices = {
        name: attrs.evolve(each, why_not=_not_for(test, name) or each.why_not)
        for name, each in _choices(test, names, metafunc.config, loaded).items()
    }
    if booted:
        metafunc.parametrize("pvops_recipe", list(choices.items()), ids=names, indirect=True)
        return
    from pvops_core.errors import PvopsError  # noqa: PLC0415 - likewise
    from pvops_core.testing.conformance.cases import cases as suite_cases  # noqa: PLC0415
    from pvops_core.testing.fixtures.cells import cells  # noqa: PLC0415

    if "pvops_case" in metafunc.fixturenames:
        config, given = metafunc.config, metafunc.config.getoption("--pvops-ops")
        ops = frozenset(given.split(",")) if given else None
        tried = [
            case.chosen(choices[name])
            for name in names
            for case in suite_cases(
                test.originalname, loaded.backends[name], loaded.backends, ops, smoke=config.getoption("--pvops-smoke")
            )
            if case.within(config.getoption("--pvops-layouts") or "*")
        ]
        metafunc.parametrize("pvops_case", tried, ids=str, indirect=True)
        return
    try:
        found = cells(test, names, loaded.backends)
    except PvopsError as error:
        raise pytest.UsageError(f"{test.nodeid}: {error}") from error
    metafunc.parametrize("pvops_cell", [cell.chosen(choices[cell.backend]) for cell in found], ids=str, indirect=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the machine of a test that failed, and of the traceback what is not ours."""
    if call.excinfo is not None and not item.config.getoption("fulltrace"):
        from pvops_core.backends.blame import hide_ours  # noqa: PLC0415 - likewise

        hide_ours(call.excinfo.value)
        call.excinfo = pytest.ExceptionInfo.from_exception(call.excinfo.value)
    report = yield
    if report.failed and call.excinfo is not None:
        _explain(item, call.excinfo.value, report)
    return report


def _explain(item: pytest.Item, error: BaseException, report: pytest.TestReport) -> None:
    """Add to a failed test's report what it is about; of the suite's it is all, the suite's own code left out."""
    if not isinstance(error, AssertionError):
        report.user_properties.append(("pvops_crash", type(error).__name__))
    on = _on(item)
    if on is None:
        return
    from pvops_core.testing.conformance.broken import whole  # noqa: PLC0415 - likewise
    from pvops_core.testing.reporting.explain import explain  # noqa: PLC0415
    from pvops_core.testing.reporting.replay import replay  # noqa: PLC0415

    if "pvops_case" in getattr(item, "fixturenames", ()) and not item.config.getoption("fulltrace"):
        report.longrepr = whole(error)
    report.sections.append(("pvops replay", replay(item, *on)))
    if report.when == "call" and _USED in item.stash:
        report.sections.append(("pvops machine", explain(item.stash[_USED])))


def _on(item: pytest.Item) -> tuple[str, Choices] | None:
    """The backend that a test is run on, and its settings; None of a test that is run on none."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    if "pvops_recipe" in parameters:
        name, choices = parameters["pvops_recipe"]
        return name, choices
    cell = parameters.get("pvops_cell") or getattr(parameters.get("pvops_case"), "cell", None)
    return (cell.backend, cell.choices) if cell is not None else None


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:  # noqa: ANN401 - a private class
    """The verdict on every op that the conformance suite tried."""
    reports = [report for group in terminalreporter.stats.values() for report in group]
    if any(name == "pvops_op" for report in reports for name, _value in getattr(report, "user_properties", ())):
        from pvops_core.testing.reporting.verdicts import ktap, table, verdicts  # noqa: PLC0415 - likewise

        found = verdicts(reports)
        terminalreporter.section("verdicts")
        for line in table(found):
            terminalreporter.write_line(line)
        if target := config.getoption("--pvops-ktap"):
            Path(target).write_text(ktap(found), encoding="utf-8")


@pytest.fixture
def pvops_cell(request: pytest.FixtureRequest) -> MachineCell:
    """The machine that this run of the test is for."""
    cell: MachineCell = request.param
    if cell.why_not:
        pytest.skip(f"{cell.backend}: {cell.why_not}")
    return cell


@pytest.fixture
def pvops_lab(request: pytest.FixtureRequest, pvops_cell: MachineCell) -> KeptMachine:
    """The machine, at the point where the test begins."""
    from pvops_core.testing.fixtures.keptmachine import KEPT, ImpossibleError, KeptMachine, Pool  # noqa: PLC0415 - likewise

    config = request.config
    if _MACHINES not in config.stash:
        backends, seed = loaded_backends(config).backends, config.getoption("--pvops-seed")
        config.stash[_MACHINES] = Pool(partial(KeptMachine, backends=backends, seed=seed), KEPT)
    try:
        kept = config.stash[_MACHINES].get(pvops_cell)
    except ImpossibleError as error:
        pytest.skip(f"{pvops_cell.backend}: {error}")
    request.node.stash[_USED] = kept
    return kept


@pytest.fixture
def backend(request: pytest.FixtureRequest, pvops_cell: MachineCell) -> Backend:
    """The backend that is tested."""
    return loaded_backends(request.config).backends[pvops_cell.backend]


@pytest.fixture
def session(pvops_lab: KeptMachine) -> Session:
    """The built-in guest on the backend, its first vCPU standing in the kernel."""
    return pvops_lab.session


@pytest.fixture
def machine(session: Session) -> Machine:
    """The session's machine."""
    return session.machine


@pytest.fixture
def vcpu(machine: Machine) -> Vcpu:
    """The machine's first vCPU."""
    return machine.vcpus[0]


@pytest.fixture
def call(pvops_lab: KeptMachine) -> Caller:
    """Calls one op and says what it did: ``call("write_cr3", root).changes``."""
    return pvops_lab.call


@pytest.fixture
def patch(pvops_lab: KeptMachine) -> PatchCaller:
    """The code that the backend puts in place of a call: ``patch("irq_disable").assembles_to("cli")``."""
    return pvops_lab.patch


@pytest.fixture
def text_page(pvops_lab: KeptMachine) -> TextPage:
    """Room in the guest's text for code of the test's own."""
    from pvops_core.testing.textpage import TextPage  # noqa: PLC0415 - likewise

    return TextPage(pvops_lab.call)


@pytest.fixture
def pvops_recipe(request: pytest.FixtureRequest) -> Recipe:
    """What this run of the test boots."""
    from pvops_core.testing.booted import PLACE, Recipe, find_image  # noqa: PLC0415 - likewise

    config, node = request.config, request.node
    backend, choices = request.param
    if choices.why_not:
        pytest.skip(f"{backend}: {choices.why_not}")
    given = config.getoption("--pvops-kernel") or os.environ.get("PVOPS_KERNELS")
    if not given:
        pytest.skip("no kernel image: give --pvops-kernel FILE, or PVOPS_KERNELS=folder")
    image = find_image(given)
    if image is None:
        pytest.skip(f"no kernel image: {given} is not there, or holds no vmlinu*")
    place, vcpus = node.get_closest_marker("pvops_at"), node.get_closest_marker("pvops_vcpus")
    cmdline = node.get_closest_marker("pvops_cmdline")
    return Recipe(
        str(image),
        backend,
        config.getoption("--pvops-initrd") or "",
        " ".join(cmdline.args) if cmdline else "",
        place.args[0] if place else PLACE,
        vcpus.args[0] if vcpus else 1,
        config.getoption("--pvops-seed"),
        choices,
    )


@pytest.fixture
def kernel(request: pytest.FixtureRequest, pvops_recipe: Recipe) -> BootedKernel:
    """A booted real kernel, as it was when it came to its place; skipped with the reason where there is none."""
    from pvops_core.errors import UsageError  # noqa: PLC0415 - likewise
    from pvops_core.testing.booted import KEPT, BootedKernel  # noqa: PLC0415
    from pvops_core.testing.fixtures.keptmachine import Pool  # noqa: PLC0415

    config = request.config
    if _KERNELS not in config.stash:
        from pvops_core.saved.shelf import Shelf  # noqa: PLC0415

        shelf, fresh = Shelf.of(os.environ), config.getoption("--pvops-fresh")

        def make(recipe: Recipe) -> BootedKernel:
            with lasting():
                return BootedKernel(recipe, _chains(config, [recipe.backend]).backends, shelf, fresh=fresh)

        config.stash[_KERNELS] = Pool(make, KEPT)
    try:
        booted = config.stash[_KERNELS].get(pvops_recipe)
    except UsageError as error:
        pytest.skip(f"{pvops_recipe.backend}: {error}")
    request.node.stash[_USED] = booted
    return booted

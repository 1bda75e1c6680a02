"""Broken plugins, as real distributions: each is reported with its place, and the others go on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from pvops_core.backends import Loaded, discover, load_backends
from tests.backends.conftest import ONLY_HERE, Shelf

if TYPE_CHECKING:
    from pvops_core.errors import PluginError

GOOD = "backend = make('good')"

AT_IMPORT = {
    "import error": (
        "import no_such_module_anywhere",
        "ModuleNotFoundError: No module named 'no_such_module_anywhere'",
    ),
    "syntax error": ("def broken(:", "SyntaxError"),
    "exception": ("1 / 0", "ZeroDivisionError: division by zero"),
    "SystemExit": ("raise SystemExit(3)", "SystemExit: 3"),
    "sys.exit": ("import sys; sys.exit()", "SystemExit"),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "GeneratorExit": ("raise GeneratorExit('odd')", "GeneratorExit: odd"),
    "own BaseException": ("class Odd(BaseException): pass\nraise Odd('very')", "Odd: very"),
    "recursion": ("def f(): f()\nf()", "RecursionError"),
    "an error that cannot say what it is": (
        "class Mute(Exception):\n    def __str__(self): raise ValueError\nraise Mute",
        "Mute: (its __str__ raised ValueError",
    ),
    "somebody else's PluginError": (
        "from pvops_core.errors import PluginError\nraise PluginError('not me', distribution='innocent')",
        "not me",
    ),
    "module attribute that raises": ("def __getattr__(name): raise SystemExit(name)", "SystemExit: backend"),
    "no attribute": ("other = make('bad')", "has no 'backend'"),
    "not a backend": ("backend = {'name': 'bad'}", "is a dict, not a pvops_core.backends.Backend"),
    "the class and not an object": ("backend = Backend", "is a type, not a pvops_core.backends.Backend"),
    "a backend that cannot be made": ("backend = Backend(name='bad')", "TypeError"),
}

IN_ITS_DECLARATION = {
    "newer API": ("make('bad', api=3)", "plugin API 3; this pvops has API 2"),
    "API as text": ("make('bad', api='1')", "plugin API '1'"),
    "another name": ("make('worse')", "calls itself 'worse', but its entry point is 'bad'"),
    "a name that is none": ("make('Bad Name')", "'Bad Name' is not lower-case letters"),
    "name of another type": ("make(None)", "None is not lower-case letters"),
    "base of another type": ("make('bad', base=Backend)", "not the name of a backend"),
    "no such base": ("make('bad', base='missing')", "based on 'missing', which is not there"),
    "its own base": ("make('bad', base='bad')", "based on itself: bad -> bad"),
    "no platform anywhere": ("make('bad', platform=None)", "neither it nor its base has a platform"),
    "platform that is no class": ("make('bad', platform=Bare.build)", "not a class"),
    "settings that are none": (
        "make('bad', platform=type('P', (Bare,), {'settings_class': int}))",
        "settings_class of its platform P is no class of Settings",
    ),
    "a setting of a type that has no text": (
        """0
import attrs
from pvops_core.backends import Settings, setting
@attrs.frozen(kw_only=True)
class Mine(Settings):
    speed: float = setting(1.5, "how fast")
backend = make('bad', platform=type('P', (Bare,), {'settings_class': Mine}))""",
        "setting speed of its platform P is a <class 'float'>; it can be int, bool or str",
    ),
    "a setting whose default is not allowed": (
        """0
import attrs
from pvops_core.backends import Settings, setting
@attrs.frozen(kw_only=True)
class Mine(Settings):
    speed: int = setting(7, "how fast", most=5)
backend = make('bad', platform=type('P', (Bare,), {'settings_class': Mine}))""",
        "setting speed of its platform P has a default that is not allowed: 7",
    ),
    "platform without a loader": ("make('bad', platform=type('P', (Bare,), {'loaders': {}}))", "has no loaders"),
    "platform of another type": (
        "make('bad', platform=type('P', (), {'__init__': _nothing}))",
        "not a subclass of Platform",
    ),
    "platform without methods": ("make('bad', platform=type('P', (Platform,), {}))", "lacks before_entry, cpuid"),
    "platform with other arguments": (
        "make('bad', platform=type('P', (Bare,), {'__init__': lambda self: None}))",
        "cannot be made with machine",
    ),
    "platform without kinds": ("make('bad', kinds=frozenset())", "names no kind of machine"),
    "kinds as text": ("make('bad', kinds={'x86_64'})", "'x86_64', which is not a MachineKind"),
    "kinds as one text": ("make('bad', kinds='x86_64')", "its kinds is a str, not a set"),
    "capabilities as text": ("make('bad', capabilities='all')", "its capabilities is a str"),
    "the kernel's name": (
        "make('kernel')",
        "its name 'kernel' is reserved: an op is switched by it",
    ),
    "nobody's name": ("make('none')", "its name 'none' is reserved"),
    "forces as text": ("make('bad', forces='XENPV')", "its forces is a str, not a set"),
    "forces a number": ("make('bad', forces={272})", "its forces has 272, which is not a str"),
    "forces what cannot be": (
        "make('bad', forces={'XENPV', 'SMEP'})",
        "it forces 'SMEP', which is no CPU feature that can be forced: XENPV, PVUNLOCK, VCPUPREEMPT",
    ),
    "kernel without methods": ("make('bad', kernel=object())", "has no method 'slots'"),
    "ops as an object": ("make('bad', ops=object())", "its ops is a object, not a class"),
    "ops without environment": ("make('bad', ops=type('Ops', (), {}))", "cannot be made with the Environment"),
    "patchlet of another type": ("make('bad', patchlets=('fa',))", "'fa', which is not a Patchlet"),
}

IN_A_HOOK = {
    "unknown hook": ("@hookimpl\n    def wirte_cr3(self, cpu, cr3): ...", "wirte_cr3", "did you mean write_cr3?"),
    "unknown argument": (
        "@hookimpl\n    def write_cr3(self, cpu, value): ...",
        "write_cr3",
        "'value' is not one of the hook's: cpu, cr3",
    ),
    "without vCPU": ("@hookimpl\n    def write_cr3(self, cr3): ...", "write_cr3", "first argument must be 'cpu'"),
    "vCPU last": ("@hookimpl\n    def write_cr3(self, cr3, cpu): ...", "write_cr3", "first argument must be 'cpu'"),
    "without self": ("@hookimpl\n    def halt(): ...", "halt", "takes no self"),
    "default": ("@hookimpl\n    def read_msr(self, cpu, msr, err=0): ...", "read_msr", "'err' has a default"),
    "star": ("@hookimpl\n    def write_cr3(self, *arguments): ...", "write_cr3", "*arguments is not a plain one"),
    "keyword only": ("@hookimpl\n    def write_cr3(self, cpu, *, cr3): ...", "write_cr3", "cr3 is not a plain one"),
    "patch with a vCPU": (
        "@hookimpl\n    def patch(self, cpu, type, clobbers, insnbuf, addr, len): ...",
        "patch",
        "'cpu' is not one of the hook's",
    ),
    "value with a vCPU": (
        "@hookimpl\n    def kernel_rpl(self, cpu): ...",
        "kernel_rpl",
        "'cpu' is not one of the hook's",
    ),
    "coroutine": ("@hookimpl\n    async def halt(self, cpu): ...", "halt", "coroutine"),
    "asynchronous generator": ("@hookimpl\n    async def halt(self, cpu): yield", "halt", "generator"),
    "generator": ("@hookimpl\n    def halt(self, cpu): yield", "halt", "generator"),
    "wrapper": ("@hookimpl(wrapper=True)\n    def halt(self, cpu): yield", "halt", "wrappers have no place"),
    "not callable": ("halt = 5", "halt", "it is a int and cannot be called"),
    "marked but no method": (
        "import functools\n    halt = hookimpl(functools.partial(print))",
        "halt",
        "it is a partial, not a method",
    ),
    "implemented twice": (
        "@hookimpl\n    def halt(self, cpu): ...\n    @hookimpl(specname='halt')\n    def stop(self, cpu): ...",
        "halt",
        "both halt and stop implement it",
    ),
}

ABOUT_AN_OP = {
    "unknown nop": ("make('bad', nops={'halted'})", "halted", "name an op that does not exist"),
    "nop and empty": ("make('bad', nops={'halt'}, empty={'halt'})", "halt", "both its nops and its empty"),
    "nop and implemented": (
        "make('bad', ops=Ops, nops={'halt'})",
        "halt",
        "its ops implement it, but its nops name it",
    ),
    "patchlet that lies": (
        "make('bad', patchlets=(Patchlet('irq_disable', 'cli', 'fb'),))",
        "irq_disable",
        "bytes fb: the bytes say 'sti', the assembly 'cli'",
    ),
    "patchlet too long": (
        "make('bad', patchlets=(Patchlet('wbinvd', 'wbinvd;' + 'nop;' * 5, '0f09' + '90' * 5, layouts=['6.1-64']),))",
        "wbinvd",
        "7 bytes do not fit into a site of 6",
    ),
    "patchlet that harms": (
        "make('bad', patchlets=(Patchlet('save_fl', 'pushfq; pop rbx', '9c5b', layouts=('6.1-64',)),))",
        "save_fl",
        "destroys rbx",
    ),
    "patchlet that does not parse": (
        "make('bad', patchlets=(Patchlet('clts', 'clts', '0f 6'),))",
        "clts",
        "hexadecimal",
    ),
    "patchlet for no op": ("make('bad', patchlets=(Patchlet('nothing', 'nop', '90'),))", "nothing", "has this op"),
}

WITH_OPS = """
class Ops:
    def __init__(self, env): ...
    {body}
backend = make('bad', ops=Ops)
"""


def _load(shelf: Shelf, code: str, value: str = "the_bad_one:backend") -> tuple[Loaded, PluginError]:
    shelf.put("the-good-one", GOOD)
    shelf.put("the-bad-one", code, entries={"bad": value}, version="4.5")
    loaded = load_backends(environ=ONLY_HERE)
    assert list(loaded.backends) == ["good"]
    (error,) = loaded.errors
    assert error.distribution == "the-bad-one"
    assert error.version == "4.5"
    assert error.entry_point == f"bad = {value}"
    assert str(error).startswith(f"the-bad-one 4.5, entry point bad = {value}")
    return loaded, error


@pytest.mark.parametrize("kind", AT_IMPORT)
def test_broken_at_import(shelf: Shelf, kind: str) -> None:
    code, message = AT_IMPORT[kind]
    _, error = _load(shelf, code)
    assert message in error.message


@pytest.mark.parametrize("kind", IN_ITS_DECLARATION)
def test_broken_in_its_declaration(shelf: Shelf, kind: str) -> None:
    declared, message = IN_ITS_DECLARATION[kind]
    _, error = _load(shelf, f"backend = {declared}")
    assert message in error.message


@pytest.mark.parametrize("kind", IN_A_HOOK)
def test_broken_in_a_hook(shelf: Shelf, kind: str) -> None:
    body, hook, message = IN_A_HOOK[kind]
    _, error = _load(shelf, WITH_OPS.format(body=body))
    assert error.hook == hook
    assert f"hook {hook}" in str(error)
    assert message in error.message


@pytest.mark.parametrize("kind", ABOUT_AN_OP)
def test_broken_about_an_op(shelf: Shelf, kind: str) -> None:
    declared, op, message = ABOUT_AN_OP[kind]
    ops = "class Ops:\n    def __init__(self, env): ...\n    @hookimpl\n    def halt(self, cpu): ...\n"
    _, error = _load(shelf, f"{ops}backend = {declared}")
    assert error.hook == op
    assert message in error.message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_module:backend", "No module named 'no_such_module'"),
        ("the_bad_one", "is not module:attribute"),
        ("the_bad_one:", "is not module:attribute"),
        ("the_bad_one:make.name", "has no 'make.name'"),
        ("not a module:backend", "is not module:attribute"),
    ],
)
def test_an_entry_point_that_leads_nowhere(shelf: Shelf, value: str, message: str) -> None:
    _, error = _load(shelf, "backend = make('bad')", value)
    assert message in error.message


@pytest.mark.parametrize(
    "content",
    [
        b"[pvops.backends]\nthis line is no entry\n",
        b"[pvops.backends]\nbad = \xff\xfe\n",
    ],
)
def test_metadata_that_cannot_be_read(shelf: Shelf, content: bytes) -> None:
    shelf.put("the-good-one", GOOD)
    shelf.put("the-bad-one", "backend = make('bad')", entry_points=content)
    (problem,) = [found for found in discover(environ=ONLY_HERE) if found.problem]
    assert "the_bad_one" in problem.distribution
    loaded = load_backends(environ=ONLY_HERE)
    assert list(loaded.backends) == ["good"]
    assert "its metadata cannot be read" in loaded.errors[0].message


@pytest.mark.parametrize("finder", ["importlib.metadata", "importlib_metadata"])
def test_a_distribution_without_metadata_is_called_by_its_folder(shelf: Shelf, finder: str) -> None:
    pytest.importorskip(finder)  # the package, once imported, finds all that is installed
    shelf.put("the-bad-one", "backend = make('worse')", entries={"bad": "the_bad_one:backend"})
    (shelf.folder / "the_bad_one-1.2.3.dist-info" / "METADATA").unlink()
    (error,) = load_backends(environ=ONLY_HERE).errors
    assert error.distribution == "the_bad_one-1.2.3.dist-info"
    assert "calls itself 'worse'" in error.message


def test_a_name_that_is_taken_goes_to_the_first_and_the_second_is_told_how_to_get_it(shelf: Shelf) -> None:
    shelf.put("a-first", GOOD)
    shelf.put("b-second", GOOD)
    loaded = load_backends(environ=ONLY_HERE)
    assert loaded.sources["good"].distribution == "a-first"
    (error,) = loaded.errors
    assert error.distribution == "b-second"
    assert "the name 'good' is taken by a-first 1.2.3" in error.message
    assert "PVOPS_DISABLE_PLUGINS=a-first" in error.message
    alone = load_backends(environ={"PVOPS_DISABLE_PLUGINS": "pvops-*,a-first"})
    assert alone.sources["good"].distribution == "b-second"
    assert not alone.errors


def test_a_name_belongs_to_the_distribution_that_is_called_after_it(shelf: Shelf) -> None:
    shelf.put("a-first", GOOD)
    shelf.put("pvops-good", GOOD)
    loaded = load_backends(environ={})
    assert loaded.sources["good"].distribution == "pvops-good"
    assert "a-first" in {error.distribution for error in loaded.errors}


def test_one_distribution_may_break_one_of_its_backends_only(shelf: Shelf) -> None:
    entries = {"good": "two_of_them:good", "bad": "two_of_them:bad"}
    shelf.put("two-of-them", "good = make('good')\nbad = make('bad', api=99)", entries=entries)
    loaded = load_backends(environ=ONLY_HERE)
    assert list(loaded.backends) == ["good"]
    assert [error.entry_point for error in loaded.errors] == ["bad = two_of_them:bad"]


def test_a_circle_of_bases_breaks_all_of_them_and_those_on_top(shelf: Shelf) -> None:
    code = "a = make('a', base='b')\nb = make('b', base='a')\nc = make('c', base='b')\ngood = make('good')"
    shelf.put("round", code, entries={name: f"round:{name}" for name in ("a", "b", "c", "good")})
    loaded = load_backends(environ=ONLY_HERE)
    assert list(loaded.backends) == ["good"]
    assert sorted(error.entry_point[0] for error in loaded.errors) == ["a", "b", "c"]
    assert any("based on itself: a -> b -> a" in error.message for error in loaded.errors)


def test_without_its_base_a_backend_is_reported_too(shelf: Shelf) -> None:
    code = "base = make('base', api=0)\nmiddle = make('middle', base='base')\ntop = make('top', base='middle')"
    shelf.put("tower", code, entries={name: f"tower:{name}" for name in ("base", "middle", "top")})
    loaded = load_backends(environ=ONLY_HERE)
    assert not loaded.backends
    assert [error.entry_point.split()[0] for error in loaded.errors] == ["base", "middle", "top"]


def test_a_real_interrupt_ends_the_host(shelf: Shelf) -> None:
    shelf.put("the-slow-one", "import signal\nsignal.raise_signal(signal.SIGINT)")
    with pytest.raises(KeyboardInterrupt):
        load_backends(environ=ONLY_HERE)


def test_what_a_plugin_prints_does_not_reach_standard_output(shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    shelf.put("the-loud-one", f"print('hello')\n{GOOD}")
    assert list(load_backends(environ=ONLY_HERE).backends) == ["good"]
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err == "hello\n"


def test_listing_imports_nothing(shelf: Shelf) -> None:
    module = shelf.put("the-bad-one", "raise SystemExit", entries={"bad": "the_bad_one:backend"})
    (found,) = discover(environ=ONLY_HERE)
    assert (found.name, found.distribution, found.version) == ("bad", "the-bad-one", "1.2.3")
    assert found.entry_point == "bad = the_bad_one:backend"
    assert module not in sys.modules


def test_an_api_that_is_no_longer_known_is_told_from_a_newer_one(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pvops_core.backends.loading.checking.API", 4)
    monkeypatch.setattr("pvops_core.backends.loading.checking.OLDEST_API", 3)
    names = {"api2": 2, "api3": 3, "api4": 4, "api5": 5}
    code = "\n".join(f"{name} = make('{name}', api={number})" for name, number in names.items())
    shelf.put("four-of-them", code, entries={name: f"four_of_them:{name}" for name in names})
    loaded = load_backends(environ=ONLY_HERE)
    assert set(loaded.backends) == {"api3", "api4"}
    older, newer = (error.message for error in loaded.errors)
    assert older.endswith("plugin API 2; this pvops has API 4 and knows them from 3 on: a newer four-of-them is needed")
    assert newer.endswith("plugin API 5; this pvops has API 4: a newer pvops-core is needed")

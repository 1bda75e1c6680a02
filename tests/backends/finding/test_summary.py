"""Backends are listed by what their sources say, which is what they declare, and nothing of them is run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pvops_core.backends import discover, implemented, load_backends
from pvops_core.backends.finding.found import Found
from pvops_core.backends.finding.summary import Summary, read_summary


def summary(found: Found) -> Summary:
    return read_summary(found)[0]


EXAMPLES = sorted(str(path.parent) for path in (Path(__file__).parents[3] / "examples").glob("*/pyproject.toml"))
IMPORTS = "from pvops_core.backends import API, Backend\nfrom pvops_core.hookspecs import hookimpl\n"


def test_the_sources_say_what_the_backends_declare() -> None:
    loaded = load_backends(EXAMPLES)
    assert len(loaded.backends) >= 5
    for name, backend in loaded.backends.items():
        assert summary(loaded.sources[name]) == Summary(
            backend.name,
            backend.description,
            backend.base,
            tuple(sorted(implemented(backend))),
            tuple(sorted(backend.capabilities)),
        )


def read(folder: Path, code: str, **more: str) -> Summary:
    package = folder / "mine"
    package.mkdir(exist_ok=True)
    for name, text in {"__init__": IMPORTS + code, **more}.items():
        (package / f"{name}.py").write_text(text)
    return summary(Found("mine", "mine", "1", "mine:backend", folders=(folder,)))


def test_names_are_followed_over_modules_and_classes(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "from . import words\nfrom mine.ops import Ops as Mine\n"
        "made = Backend(name=words.NAME, api=API, ops=Mine, base='native', capabilities=words.ALL | {'c'})\n"
        "backend = made",
        words="NAME = 'mine'\nALL = frozenset({'a'}) | frozenset(('b',))",
        ops="from pvops_core import hookspecs as specs\nimport mine.more\n"
        "class Ops(mine.more.Base):\n"
        "    @specs.hookimpl(specname='write_cr3')\n    def load(self, cpu, cr3): ...\n"
        "    def halt(self, cpu): 'no longer a hook'\n"
        "    @staticmethod\n    @specs.hookimpl\n    def clts(cpu): ...\n"
        "    @property\n    def cli(self): ...",
        more="from pvops_core.hookspecs.markers import hookimpl\n"
        "class Root(object):\n    @hookimpl\n    def wbinvd(self, cpu): ...\n"
        "if True:\n    class Base(Root):\n        @hookimpl\n        def halt(self, cpu): ...",
    )
    assert found == Summary("mine", "", "native", ("clts", "wbinvd", "write_cr3"), ("a", "b", "c"))


@pytest.mark.parametrize(
    ("code", "known"),
    [
        ("backend = Backend(name='mine', ops=make())", Summary("mine", "", None, None, ())),
        ("backend = Backend(name='mine', ops=nowhere)", Summary("mine", "", None, None, ())),
        ("backend = Backend(name='m' + 'e', capabilities={x for x in 'ab'})", Summary(None, "", None, (), None)),
        ("class Ops(Ops): ...\nbackend = Backend(name='mine', ops=Ops)", Summary("mine", "", None, None, ())),
        ("a = b\nb = a\nbackend = Backend(name=a)", Summary(None, "", None, (), ())),
        ("import decimal\nbackend = Backend(name='mine', ops=decimal.Nothing)", Summary("mine", "", None, None, ())),
        ("import sys\nbackend = Backend(name='mine', ops=sys.Nothing)", Summary("mine", "", None, None, ())),
        ("backend = make()", Summary()),
        ("from elsewhere import Backend\nbackend = Backend(name='mine')", Summary()),
        ("other = 5", Summary()),
        ("def broken(:", Summary()),
        ("\0", Summary()),
        ("backend = " + "(" * 5000, Summary()),
        ("backend = " + "-" * 50000 + "1", Summary()),
    ],
)
def test_what_only_running_would_tell_is_left_open(tmp_path: Path, code: str, known: Summary) -> None:
    assert read(tmp_path, code) == known


def test_a_file_and_a_package_given_by_path_are_read(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for file in (tmp_path / "one.py", tmp_path / "mine" / "__init__.py"):
        file.write_text(f"{IMPORTS}from .names import NAME\nbackend = Backend(name=NAME)\nraise SystemExit")
    (tmp_path / "mine" / "names.py").write_text("NAME = 'packed'")
    found = discover([str(tmp_path / "one.py"), str(tmp_path / "mine")], {"PVOPS_DISABLE_PLUGINS": "pvops-*"})
    assert [summary(one).name for one in found] == [None, "packed"]


def test_no_source_is_too_large(tmp_path: Path) -> None:
    assert read(tmp_path, f"backend = Backend(name='mine')\n{' ' * (4 << 20)}") == Summary()


def test_listing_imports_neither_plugins_nor_libraries() -> None:
    code = "import sys; from pvops_core.cli import main; main(['backends']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert "native" in done.stdout
    assert not loaded & {"pvops_native", "pvops_xen", "unicorn", "capstone", "numpy", "pluggy", "rich", "jinja2"}
    assert "pvops_core.hookspecs" not in done.stderr.split()


def test_a_module_in_namespace_packages_is_read(tmp_path: Path) -> None:
    """Folders without an ``__init__.py``, two deep, of which nobody has imported the first."""
    place = tmp_path / "space" / "part"
    place.mkdir(parents=True)
    (place / "mine.py").write_text(f"{IMPORTS}backend = Backend(name='mine', api=API, base='native')")
    found = summary(Found("mine", "mine", "1", "space.part.mine:backend", folders=(tmp_path,)))
    assert (found.name, found.base) == ("mine", "native")
    nothing = summary(Found("mine", "mine", "1", "space.other.mine:backend", folders=(tmp_path,)))
    assert nothing.base is None

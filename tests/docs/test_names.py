"""Names of Python that pages tell are there; what is promised is imported as told; the reference shows each once."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from functools import reduce
from importlib import import_module
from pathlib import Path

from pvops_core.hookspecs import HookDeprecationWarning
from pvops_core.hookspecs.reference import page as hooks_page
from pvops_core.patching.context import PatchContext

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PROMISED = ("patch_default", "patch_inline", "NativePlatform", "PcSettings", "NativeOps", "Patchlet", "Guest")
"""Asked for by authors: patchers to leave a site to, and the bare metal that platforms and ops derive from."""


def found(name: str) -> object:
    """A module, or what is in one."""
    words = name.split(".")
    for length in range(len(words), 0, -1):
        try:
            module = import_module(".".join(words[:length]))
        except ModuleNotFoundError:
            continue
        return reduce(getattr, words[length:], module)
    raise ModuleNotFoundError(name)


def told(text: str) -> set[str]:
    """The dotted names between backticks, one or two, without what API 1 had and this one has not."""
    text = text.partition("## From API 1 to API 2")[0]
    return set(re.findall(r"`(pvops_(?:core|native|xen|lguest)(?:\.\w+)*)`", text))


def test_every_name_on_a_page_is_there() -> None:
    """One that is there no more, or is to go, is an error here. A decision of the past has the names of its time."""
    pages = [page for page in DOCS.rglob("*.md") if not {"adr", "_build"} & set(page.parts)]
    names = {name: page.name for page in pages for name in told(page.read_text(encoding="utf-8"))}
    assert "pvops_core.patching.patchdefault" in names
    missing = []
    for name, page in sorted(names.items()):
        try:
            found(name)
        except (ModuleNotFoundError, AttributeError, HookDeprecationWarning) as failure:
            missing.append((page, name, str(failure)))
    assert missing == []


def test_what_authors_build_on_is_promised() -> None:
    section = (
        (DOCS / "reference" / "plugins.md").read_text(encoding="utf-8").partition("## What authors may rely on")[2]
    )
    promise = section.partition("\n## ")[0]
    assert [name for name in PROMISED if not re.search(rf"`(?:\w+\.)*{name}`", promise)] == []


def test_a_hook_is_told_of_a_context_that_it_has() -> None:
    (line,) = (line for line in hooks_page().splitlines() if line.startswith("- ctx: "))
    for word in line.partition(": ")[2].partition(" of this backend")[0].replace(" and ", ", ").split(", "):
        assert hasattr(PatchContext, word) or word in PatchContext.__annotations__, word
    following = hooks_page().partition("the default patcher is\n")[2].splitlines()[0]
    assert callable(found(following.strip(" `.")))


def test_the_reference_shows_each_name_once() -> None:
    """A page that had all, some of it twice, took 692 KB."""
    modules = [
        name
        for page in sorted((DOCS / "reference" / "api").glob("*.md"))
        for name in re.findall(r"automodule:: ([\w.]+)", page.read_text(encoding="utf-8"))
    ]
    assert [name for name, times in Counter(modules).items() if times > 1] == []
    shown: Counter[str] = Counter()
    for name in modules:
        module = import_module(name)
        for member in getattr(module, "__all__", ()):
            thing = getattr(module, member)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                shown[f"{thing.__module__}.{thing.__qualname__}"] += 1
    assert [name for name, times in shown.items() if times > 1] == []


def test_the_readme_says_where_the_command_and_a_kernel_come_from_before_it_uses_them() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for use, said in (("\npvops ", "`.venv/bin/pvops`"), (" vmlinuz-", "`apt-get download linux-image-")):
        assert 0 < text.find(said) < text.find(use), said

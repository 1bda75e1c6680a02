"""The page of settings, of what the backends that ship with pvops declare.

``python docs/tools/settings.py > docs/reference/settings.md``
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pvops_core.backends import Backend, load_backends
from pvops_core.backends.choices import settings_of
from pvops_core.machine.cpu.model.cpumodel import MODELS

if TYPE_CHECKING:
    from pvops_core.backends.settings import Declared

SHIPPED: Final = ("native", "xen", "lguest")
HEAD: Final = """# Settings

What a platform lets its users choose, made by `make reference` of the declarations. `--set NAME=VALUE` of `pvops run`,
`boot` and `compare` takes them, and so do `--pvops-set` and the marker `pvops_set` of [the pytest
plugin](pytest-plugin.md). `pvops backends --check` lists those of every backend that is installed, and its `--json`
all that is declared of each.

A comparison gives a setting to those of its backends that have it. One that none has, or a value that is not allowed,
is refused before anything runs. What a run was given stands under `options` in its JSON. A number may be written as
0x10 too.
"""
MODELS_HEAD: Final = """## Models of processors

`cpu` says which features cpuid shows. It hides: what is not shown the engine does all the same. Narrower machines have
fewer of these, and a platform adds or hides what is its own affair (an APIC; on Xen what a PV guest must not use).
`-FEATURE` behind a model takes one away, `+FEATURE` adds one: `--set cpu=x86-64-v1,+sse3,-nx`.

| model | features |
|---|---|
"""


def page() -> str:
    """The page as Markdown."""
    backends = load_backends().backends
    parts = [HEAD, *("\n".join(_of(backends[name], settings_of(backends[name], backends))) for name in SHIPPED)]
    rows = "".join(f"| `{name}` | {' '.join(sorted(features))} |\n" for name, features in MODELS.items())
    return "\n".join([*parts, MODELS_HEAD + rows])


def _of(backend: Backend, settings: dict[str, Declared]) -> Iterator[str]:
    yield f"## {backend.name}\n"
    yield "| name | default | allowed | meaning |\n|---|---|---|---|"
    for each in settings.values():
        yield f"| `{each.name}` | `{each.default_text or ' '}` | {each.may_be} | {each.help} |"
    yield ""


if __name__ == "__main__":
    sys.stdout.write(page())

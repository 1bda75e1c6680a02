"""The reference page of all hooks: ``python -m pvops_core.hookspecs.reference > docs/reference/hooks.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby

from pvops_core import hookspecs
from pvops_core.hookspecs.specs import Spec, specs
from pvops_core.ops import LAYOUTS, Layout, Slot

SHOWN = ("2.6.23", "2.6.23-lapic-pae", "2.6.24", "2.6.24-pae", "6.1-64", "6.1-32", "6.12-64", "7.2-64")
"""The layouts whose type numbers are given: those of the built-in guests and of the kernels that distributions ship."""

HEAD = """# Hooks

Every hook that a backend may implement, made by `python -m pvops_core.hookspecs.reference` from the specs in
`pvops_core/hookspecs` and the catalogue in `pvops_core/ops`. A number after a layout is the op's type number there;
`boot` marks a hook outside the table. The built-in guest has layouts 2.6.23-lapic, 2.6.23-lapic-pae,
2.6.24, 2.6.24-pae and 6.1-64; the others are those of real kernels.
"""


def page() -> str:
    """The page as Markdown."""
    return "\n".join([HEAD, *_groups()]) + "\n"


def _groups() -> Iterator[str]:
    modules = {module.__name__.rpartition(".")[2]: module for module in hookspecs.MODULES}
    for group, members in groupby(specs().values(), key=lambda spec: spec.group):
        summary = (modules[group].__doc__ or "").partition("\n")[0]
        yield f"## {group}\n\n{summary}\n"
        for spec in members:
            yield _hook(spec)


def _hook(spec: Spec) -> str:
    prototypes, warnings = (
        "\n".join(_prototypes(spec.name)),
        "".join(f"\nDeprecated: {it}\n" for it in spec.deprecations),
    )
    declared = "\n".join(_declared(spec.name))
    return f"### {spec.name}\n\n    {spec.signature}\n\n{prototypes}\n{warnings}\n{_body(spec.doc)}\n\n{declared}\n"


def _prototypes(name: str) -> Iterator[str]:
    places: dict[tuple[str, str], list[str]] = {}
    for layout in (LAYOUTS[shown] for shown in SHOWN):
        if name in layout:
            slot = layout.by_op(name)
            key = (slot.op.prototype, slot.op.convention.value)
            places.setdefault(key, []).append(f"{layout.name} {_number(layout, slot)}")
    for (prototype, convention), where in places.items():
        yield f"* `{prototype}` ({convention}): {', '.join(where)}"


def _declared(name: str) -> Iterator[str]:
    """Which members of which structs it is; a boot hook's header names its own."""
    members: dict[str, dict[str, None]] = {}
    for layout in (LAYOUTS[shown] for shown in SHOWN):
        if name in layout:
            slot = layout.by_op(name)
            named = members.setdefault(slot.op.source, {})
            if layout.has_slot(name):
                named[slot.path if "." in slot.path else f"{slot.symbol}.{slot.path}"] = None
    for source, paths in members.items():
        yield f"* Source: {', '.join(f'`{path}`' for path in paths)}{' in ' if paths else ''}{source}."


def _number(layout: Layout, slot: Slot) -> str:
    return str(slot.type) if layout.has_slot(slot.op.name) else "boot"


def _body(doc: str) -> str:
    """A docstring's sections as Markdown: arguments and errors become list items."""
    lines: list[str] = []
    listed = False
    for line in doc.splitlines():
        indent = len(line) - len(line.lstrip())
        if line in {"Args:", "Returns:", "Raises:"}:
            listed = line != "Returns:"
            lines += [line, ""]
        elif indent == 4:
            lines.append(f"- {line.strip()}" if listed else line.strip())
        else:
            lines.append(f"  {line.strip()}" if indent else line)
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(page())

"""The C tables of ops against the catalogue: the same names in the same order."""

from __future__ import annotations

import re

import pytest

from pvops_core.guests import LAYOUTS
from pvops_core.guests.builtin.build import SOURCE, VARIANTS
from pvops_core.ops import LAYOUTS as ALL_LAYOUTS

_MACRO = re.compile(r"^#define (PV_FLUSH_AND_SET|PV_CONVERT)\b((?:.*\\\n)*.*)$", re.MULTILINE)
_SLOTS = re.compile(r"SLOTS\(([^)]*)\)|\b(PV_FLUSH_AND_SET|PV_CONVERT)\b|(struct pv_lazy_ops lazy_mode)")
_LAZY = re.compile(r"struct pv_lazy_ops \{\s*SLOTS\(([^)]*)\);\s*\};")


def header(flags: tuple[str, ...]) -> str:
    """layout.h with its conditions resolved: of #if, #ifdef, #elif, #else and #endif only."""
    defined = {flag[2:].split("=")[0] for flag in flags if flag.startswith("-D")}
    lines, stack = [], []
    for line in (SOURCE / "layout.h").read_text().splitlines():
        words = re.findall(r"\w+", line)
        holds = bool(defined & set(words[1:]))
        if line.startswith("#ifndef"):
            stack.append([True, True])
        elif line.startswith(("#ifdef", "#if ")):
            stack.append([holds, holds])
        elif line.startswith("#elif"):
            stack[-1] = [holds and not stack[-1][1], holds or stack[-1][1]]
        elif line.startswith("#else"):
            stack[-1] = [not stack[-1][1], True]
        elif line.startswith("#endif"):
            stack.pop()
        elif all(now for now, _ in stack):
            lines.append(line)
    return "\n".join(lines)


def names_of(text: str, macros: dict[str, str], lazy: str) -> list[str]:
    names: list[str] = []
    for match in _SLOTS.finditer(text):
        listed, macro, lazy_mode = match.groups()
        if listed is not None:
            names += [name.strip() for name in listed.split(",")]
        elif macro:
            names += names_of(macros[macro], macros, lazy)
        elif lazy_mode:
            names += [f"lazy_mode.{name.strip()}" for name in lazy.split(",")]
    return names


def table(name: str) -> tuple[list[str], list[str]]:
    """Names in the table of ops and in boot_ops, in order."""
    text = header(VARIANTS[name].flags)
    macros = dict(_MACRO.findall(text))
    text = _MACRO.sub("", text)
    found = _LAZY.search(text)
    lazy = found[1] if found else ""
    text = _LAZY.sub("", text)
    ops, boot = text.split("struct boot_ops {")
    return names_of(ops.replace("#define SLOTS(...)", ""), macros, lazy), names_of(boot.split("};")[0], {}, "")


@pytest.mark.parametrize("name", LAYOUTS)
def test_names_and_order(name: str) -> None:
    layout = ALL_LAYOUTS[name]
    ops, boot = table(name)
    expected = [re.sub(r"^(pv_)?(init|time|cpu|irq|apic|mmu|lock)(_ops)?\.", "", slot.path) for slot in layout.slots]
    assert ops == expected
    assert boot == [slot.op.name for slot in layout.boot_hooks]

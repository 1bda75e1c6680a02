"""The page that lists all cases: ``python -m pvops_xen.testing.rules.page > docs/reference/xen-rules.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_xen.testing.rules import callbacks, calls, descriptors, entry, ports, processor, stores, tables, vcpus

if TYPE_CHECKING:
    from types import ModuleType

_GROUPS: Final[tuple[tuple[str, ModuleType], ...]] = (
    ("Page tables", tables),
    ("Stores", stores),
    ("Descriptors and segments", descriptors),
    ("The processor", processor),
    ("I/O privilege and ports", ports),
    ("Callbacks and the trap table", callbacks),
    ("Ways into the kernel and back", entry),
    ("New vCPUs", vcpus),
    ("Other hypercalls", calls),
)
_HEAD: Final = """# What Xen forbids and allows a guest

Each of these is tried by a guest of a few pages, in 64-bit and in 32-bit PAE form where both exist, and ends as
Xen 4.17 ends it: with the hypercall's result, with an exception or callback in the guest, or with the domain's end and
Xen's message, which is the reason in the result of the run. The host lives on, and an audit of the frame table finds
nothing.

The rule is where Xen has it: a function or macro of xen/arch/x86 or xen/common, or what the processor does. Each group
is a module of `pvops_xen.testing.rules`, `plugins/xen/tests/test_rules.py` tries them all, and this page is made of
them (`make reference`).
"""


def page() -> str:
    """The page, in Markdown."""
    parts = [_HEAD]
    for title, module in _GROUPS:
        parts.append(f"\n## {title}\n\nTried in `{module.__name__.removeprefix('pvops_xen.testing.')}`.\n")
        parts.append("\n| what the guest tries | width | how it ends | rule |\n|---|---|---|---|\n")
        for case in module.CASES:
            widths = " and ".join(map(str, case.widths))
            parts.append(f"| {case.name} | {widths} | {case.ends} | `{case.rule}` |\n")
    return "".join(parts)


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 - this is what it is for

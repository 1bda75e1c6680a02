"""The page that lists all cases: ``python -m pvops_xen.testing.refusals.page > docs/reference/xen-refusals.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_xen.testing.refusals import calls, descriptors, entry, processor, stores, tables

if TYPE_CHECKING:
    from pvops_xen.testing.refusals.case import Collection

_GROUPS: Final[tuple[tuple[str, Collection], ...]] = (
    ("Page tables", tables.CASES),
    ("Stores", stores.CASES),
    ("Descriptors and segments", descriptors.CASES),
    ("The processor", processor.CASES),
    ("Ways into the kernel and back", entry.CASES),
    ("Other hypercalls", calls.CASES),
)
_HEAD: Final = """# What Xen refuses a guest

Each of these is tried by a guest of a few pages, in 64-bit and in 32-bit PAE form where both exist, and ends as
Xen 4.17 ends it: with an error of the hypercall, with an exception or callback in the guest, or with the domain's end
and Xen's message, which is the reason in the result of the run. The host lives on, and an audit of the frame table
finds nothing.

The rule is where Xen forbids it: a function or macro of xen/arch/x86 or xen/common, or what the processor does.
`pvops_xen.testing.refusals` holds the cases; this page is made of them (`make reference`).
"""


def page() -> str:
    """The page, in Markdown."""
    parts = [_HEAD]
    for title, cases in _GROUPS:
        parts.append(f"\n## {title}\n\n| what the guest tries | width | how it ends | rule |\n|---|---|---|---|\n")
        for case in cases:
            widths = " and ".join(map(str, case.widths))
            parts.append(f"| {case.name} | {widths} | {case.ends} | `{case.rule}` |\n")
    return "".join(parts)


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 - this is what it is for

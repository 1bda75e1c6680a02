"""The page that lists all cases: ``python -m pvops_xen.testing.rules.page > docs/reference/xen-rules.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor.processor.msrs import MSRS
from pvops_xen.testing.rules import callbacks, calls, descriptors, entry, ports, processor, stores, tables, vcpus

if TYPE_CHECKING:
    from types import ModuleType

    from pvops_xen.hypervisor.processor.msrs import Msr

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


_REGISTERS_HEAD: Final = """
## Model-specific registers

Tried in `plugins/xen/tests/hypervisor/processor/test_msrs.py`; the table is `pvops_xen.hypervisor.processor.msrs`.
All others are #GP(0). A kernel that has no handler for #GP yet reads 0 where the host's processor has the register
(`read_msr`: faking RDMSR).

| register | number | rdmsr | wrmsr | rule |
|---|---|---|---|---|
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
    parts.append(_REGISTERS_HEAD)
    for row in MSRS:
        numbers = f"{row.first:#x}" if row.first == row.last else f"{row.first:#x} to {row.last:#x}"
        parts.append(f"| {row.name} | {numbers} | {_read(row)} | {_written(row)} | `{row.rule}` |\n")
    return "".join(parts)


def _read(row: Msr) -> str:
    if row.read is None:
        return "#GP(0)"
    return "what the vCPU has" if callable(row.read) else f"{row.read:#x}"


def _written(row: Msr) -> str:
    if row.write is None:
        return "#GP(0)"
    return "by its value" if callable(row.write) else row.write


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 - this is what it is for

"""What Xen forbids and allows a PV guest: each is tried by a guest of a few pages, and ends as Xen 4.17 ends it."""

from pvops_xen.testing.rules import callbacks, calls, descriptors, entry, ports, processor, stores, tables, vcpus
from pvops_xen.testing.rules.case import Crash, Done, Errno, Gives, RuleCase, Trap

CASES: tuple[RuleCase, ...] = (
    *tables.CASES,
    *stores.CASES,
    *descriptors.CASES,
    *processor.CASES,
    *ports.CASES,
    *callbacks.CASES,
    *entry.CASES,
    *vcpus.CASES,
    *calls.CASES,
)
"""Every case, in the order of the page that lists them."""

__all__ = ["CASES", "Crash", "Done", "Errno", "Gives", "RuleCase", "Trap"]

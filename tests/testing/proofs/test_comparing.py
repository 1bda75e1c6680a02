"""Where two sides of a call differ, by what they came to alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import attrs
import numpy as np

from pvops_core.testing.proofs.comparing import ProofDifference, differences
from pvops_core.testing.proofs.sides import Hypercall, Side

if TYPE_CHECKING:
    from pvops_core.testing.proofs.unread import Masks

PAGE, AT = 0x1000, 0x4000
GP, PF = (13, None), (14, 0x1000)
IRET: Hypercall = "iret", (), 0, False, ()
SENT: Hypercall = "mmu_update", (0x10, 1), 0, False, ((0x40, 0x61),)


@attrs.frozen
class Places:
    """A page of zeros, whose bytes from a count at its beginning on count no more."""

    scratches: frozenset[int] = frozenset()

    def read(self, address: int) -> bytes:
        del address
        return bytes(PAGE)

    def name(self, address: int) -> tuple[str, str]:
        return "memory", hex(address)

    def scratch(self, address: int) -> bool:
        return address in self.scratches

    def own(self, va: int) -> bool:
        return va == 0x99

    def unread(self, written: Mapping[int, bytes], among: Collection[int]) -> Masks:
        found = {}
        for page in among:
            count = written[page][0] if page in written else 0
            found[page] = np.arange(PAGE) >= count
            found[page][0] = False
        return found

    def returns(self, hypercall: str) -> bool:
        return hypercall == "iret"


def page(*values: int) -> dict[int, bytes]:
    return {AT: bytes(values).ljust(PAGE, b"\0")}


def found(kernel: Side, hook: Side) -> list[ProofDifference]:
    return list(differences(kernel, hook, Places(), 8))


def test_memory_counts_if_one_side_uses_it() -> None:
    assert not found(Side(pages=page(2, 5, 7, 7)), Side(pages=page(2, 5)))
    (one,) = found(Side(pages=page(2, 5)), Side(pages=page(2, 6)))
    assert (one.kind, one.what, one.kernel, one.hook) == ("memory", hex(AT), "0x502", "0x602")
    (one,) = found(Side(pages=page(4, 5, 7, 7)), Side(pages=page(2, 5)))
    assert (one.kernel, one.hook) == ("0x7070504", "0x502"), "the kernel has more in use, and it is shown whole"


def test_a_page_that_one_side_alone_has_written_counts() -> None:
    (one,) = found(Side(), Side(pages=page(1)))
    assert (one.kernel, one.hook, one.before) == ("0x0", "0x1", "0x0")


def test_what_hypercalls_are_told_counts_and_not_where_it_lies() -> None:
    other: Hypercall = "mmu_update", (0x10, 1), 0, False, ((0x40, 0x63),)
    (one,) = found(Side(hypercalls=(SENT,)), Side(hypercalls=(other,)))
    assert (one.kernel, one.hook) == (
        "mmu_update(0x10, 0x1) {0x40, 0x61} = 0",
        "mmu_update(0x10, 0x1) {0x40, 0x63} = 0",
    )
    scratch: Hypercall = "mmu_update", (0x99, 1), 0, False, ((0x40, 0x61),)
    stack: Hypercall = "mmu_update", ("own memory", 1), 0, False, ((0x40, 0x61),)
    assert not found(Side(hypercalls=(scratch,)), Side(hypercalls=(stack,)))


def test_a_fault_that_a_hook_knows_to_do_without_takes_its_return_along() -> None:
    kernel = Side(hypercalls=(IRET, SENT), faults=(GP,))
    assert not found(kernel, Side(hypercalls=(SENT,)))
    assert [each.kind for each in found(attrs.evolve(kernel, faults=()), Side(hypercalls=(SENT,)))] == [
        "hypercalls"
    ] * 2
    (one,) = found(kernel, Side(hypercalls=(SENT, IRET)))
    assert (one.kind, one.kernel, one.hook) == ("hypercalls", "none", "iret() = 0")
    assert not found(kernel, Side(hypercalls=(IRET, SENT), faults=(GP,)))
    kinds = {each.kind for each in found(kernel, Side(hypercalls=(IRET, SENT), faults=(PF,)))}
    assert kinds == {"faults"}

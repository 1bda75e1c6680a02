"""Everything that Xen has a rule for ends as on Xen, in both widths, and the host and the frame table live on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pvops_xen.hypervisor.memory import audit
from pvops_xen.testing.rules import CASES, RuleCase
from pvops_xen.testing.rules.page import page

if TYPE_CHECKING:
    from pvops_xen.testing.guests import SmallGuest

TRIED = [(case, bits) for case in CASES for bits in case.widths]


VCPUS = 2


@pytest.mark.parametrize(("case", "bits"), TRIED, ids=[f"{case.name}, {bits} bits" for case, bits in TRIED])
def test_it_ends_as_xen_ends_it(guests: dict[int, SmallGuest], case: RuleCase, bits: int) -> None:
    guest = guests[bits]
    guest.restart()
    got = case.act(guest)
    assert case.ends.fits(got), f"{case.name}: {got}, not {case.ends}"
    assert audit.audit(guest.hv) == []


def test_the_page_lists_them_all() -> None:
    written = Path(__file__).parents[3] / "docs/reference/xen-rules.md"
    assert written.read_text(encoding="utf-8") == page(), "run `make reference`"


def test_there_are_enough_of_them_and_each_is_named_once() -> None:
    names = [(case.name, bits) for case, bits in TRIED]
    assert len(names) == len(set(names))
    assert len({case.name for case in CASES}) >= 60

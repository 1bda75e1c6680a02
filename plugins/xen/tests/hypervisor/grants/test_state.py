"""Whatever is asked, every reference has a holder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pvops_core.kinds import MachineKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Bench
from plugins.xen.tests.grants_rig import FRAME, SELF, TARGET, Grants


@pytest.mark.parametrize("kind", [MachineKind.X86_64, MachineKind.PAE], ids=["64", "pae"])
def test_whatever_is_asked_every_reference_has_a_holder(make_bench: Callable[..., Bench], kind: MachineKind) -> None:
    grants = Grants(make_bench(kind))
    refs, pfns = st.integers(8, 12), st.sampled_from([FRAME, TARGET, 0x200, 0x201, 0x302])
    places = st.sampled_from([grants.bench.va(pfn) for pfn in (TARGET, 0x303, 0x304, 0x200)])
    flags = st.integers(0, 31)
    step = st.one_of(
        st.tuples(st.just("version"), st.integers(1, 2)),
        st.tuples(st.just("grant"), refs, pfns, st.sampled_from([0, 1, 2, 3, 5, 0x101]), st.integers(0, 1)),
        st.tuples(st.just("map"), places, refs, flags, st.integers(0, 1)),
        st.tuples(st.just("unmap"), st.integers(0, 3), places, st.sampled_from([0, grants.bench.mfn(FRAME) << 12])),
        st.tuples(st.just("copied"), refs, refs, st.integers(0, 3)),
        st.tuples(st.just("set_mapping"), pfns),
        st.tuples(st.just("pin"), pfns),
    )

    @settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(step, max_size=12))
    def play(steps: list[tuple[str, int]]) -> None:
        for name, *arguments in steps:
            if name == "copied":
                grants.copy((arguments[0], SELF, 0), (arguments[1], SELF, 8), 16, arguments[2])
            elif name == "set_mapping":
                grants.bench.set_mapping(arguments[0], writable=True)
            elif name == "pin":
                grants.bench.mmuext(0, grants.bench.mfn(arguments[0]))
            else:
                getattr(grants, name)(*arguments)
        grants.audit()

    play()

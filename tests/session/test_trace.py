"""Tracing ops at their sites, on a kernel of a few hundred bytes whose last site is inlined."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core import records
from pvops_core.errors import UsageError
from pvops_core.guests import Kernel
from pvops_core.session import Session
from pvops_core.session.trace import TimedCount, Trace
from tests.session.selfpatching import SelfPatching
from tests.session.test_ophooks import patching

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.images import KernelImage


def session_of(backends: dict[str, Backend], image: KernelImage) -> Session:
    return Session(Kernel(image), (backends["native"],), memory=32 << 20)


def test_ops_are_counted_and_timed_whatever_their_sites_have_become(backends: dict[str, Backend]) -> None:
    with session_of(backends, patching()) as session:
        trace = Trace(session)
        assert session.run().reason == "poweroff"
        # Two direct calls of a function that is one block long, and one site that is nops.
        assert trace.ops == {"mmu.write_cr3": TimedCount(2, 10), "mmu.read_cr3": TimedCount(1, 10)}
        assert trace.traps == {"out": TimedCount(1, 1000)}
        assert trace.hypercalls == {}
        document = records.document(trace.found())
        assert [(site["op"], site["count"], site["ns"]) for site in document["sites"]] == [
            ("mmu.write_cr3", 1, 10),
            ("mmu.read_cr3", 1, 10),
            ("mmu.write_cr3", 1, 0),
        ]


def test_a_hook_in_an_op_is_part_of_its_time(backends: dict[str, Backend]) -> None:
    with session_of(backends, patching()) as session:
        trace = Trace(session)
        session.hooks.install("read_cr3", lambda cpu: cpu.machine.clock.advance(500))
        session.run()
        assert trace.ops["mmu.read_cr3"].count == 1
        assert 500 < trace.ops["mmu.read_cr3"].ns < 600


def test_a_trace_changes_nothing(backends: dict[str, Backend]) -> None:
    with session_of(backends, patching()) as plain, session_of(backends, patching()) as traced:
        trace = Trace(traced)
        plain.run()
        traced.run()
        assert traced.machine.log.sha256 == plain.machine.log.sha256
        assert traced.machine.clock.ns == plain.machine.clock.ns
        trace.close()
        assert "exception" not in vars(traced.platform)
        assert trace.ops


def test_what_came_before_it_or_after_it_is_not_counted(backends: dict[str, Backend]) -> None:
    with session_of(backends, patching()) as session:
        session.run_to("patched")
        snapshot = session.machine.snapshot()
        trace = Trace(session)
        session.run()
        trace.close()
        session.machine.restore(snapshot)
        session.run()
        assert trace.ops["mmu.write_cr3"].count == 2


def test_a_kernel_without_sites_cannot_be_traced(backends: dict[str, Backend]) -> None:
    with (
        session_of(backends, SelfPatching.of().build()) as session,
        pytest.raises(UsageError, match=r"no table of ops is known in it: \.parainstructions: is not there: no call"),
    ):
        Trace(session)

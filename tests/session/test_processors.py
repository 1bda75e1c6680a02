"""How many vCPUs a guest has started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.guests import Kernel
from pvops_core.session import Session
from tests.session.selfpatching import SelfPatching

if TYPE_CHECKING:
    from pvops_core.backends import Backend


@pytest.mark.parametrize("vcpus", [1, 3])
@pytest.mark.parametrize(("layout", "backend"), [("6.1-64", "native"), ("6.1-64", "xen"), ("2.6.24", "native")])
def test_the_built_in_guest_starts_all(backends: dict[str, Backend], layout: str, backend: str, vcpus: int) -> None:
    with Session.of_builtin(layout, backend, backends=backends, vcpus=vcpus) as session:
        before = session.machine.snapshot()
        session.run(max_ns=1)
        assert session.processors.started == 1
        session.run()
        assert session.processors.started == vcpus == session.report().results["ncpus"]
        session.machine.restore(before)
        assert session.processors.started == 0


def test_a_kernel_that_leaves_the_others_alone_has_started_one(backends: dict[str, Backend]) -> None:
    kernel = Kernel(SelfPatching.of().build())
    with Session(kernel, (backends["native"],), memory=32 << 20, vcpus=4) as session:
        assert session.run().reason == "poweroff"
        assert session.processors.started == 1

"""The data of the 2.6 tables on bare hardware."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rig import Rig

from pvops_core.ops import LAYOUTS

if TYPE_CHECKING:
    from pvops_core.ops import Layout

OLD = [name for name in sorted(LAYOUTS) if name.startswith("2.6.2")]


@pytest.mark.parametrize("name", OLD)
def test_bare_hardware_says_so(name: str) -> None:
    layout: Layout = LAYOUTS[name]
    with Rig(name) as rig:
        assert (rig.ops.kernel_rpl(), rig.ops.paravirt_enabled(), rig.ops.name()) == (0, 0, "bare hardware")
        assert rig.ops.shared_kernel_pmd() == 1
        assert layout.kind.bits == 32

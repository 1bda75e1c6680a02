from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from linux_rig import MEMORY, SPIN
from pvops_native.platform import NativePlatform

from pvops_core.guests import Kernel
from pvops_core.images import load_image
from pvops_core.kinds import MachineKind
from pvops_core.machine import Machine
from pvops_core.testing.images import ElfBuilder

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=[64, 32])
def platform(request: pytest.FixtureRequest) -> Iterator[NativePlatform]:
    bits = request.param
    builder = ElfBuilder(bits, 0x1000000)
    builder.text(".text", SPIN)
    kernel = Kernel(load_image(builder.build()), b"RAMDISK", "console=ttyS0 nopti")
    with Machine(MachineKind.X86_64 if bits == 64 else MachineKind.PAE, memory=MEMORY) as machine:
        built = NativePlatform(machine, kernel)
        machine.attach(built)
        built.build()
        yield built

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.guest.stacks.orc import Orc
from pvops_core.kinds import MachineKind
from tests.machine.conftest import CODE, Rig

if TYPE_CHECKING:
    from collections.abc import Iterator

from typing import TYPE_CHECKING

from tests.guest.stacks.frames import LINES, tables
from tests.guest.stacks.places import END

if TYPE_CHECKING:
    from pvops_core.guest.stacks.orc import Orc


@pytest.fixture(params=[(False, 0), (True, 0), (True, 1)], ids=["before 6.4", "since 6.4", "of 7.2"])
def orc(request: pytest.FixtureRequest) -> Orc:
    header, numbered = request.param
    return tables(*LINES, header=header, numbered=numbered)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig(MachineKind.X86_64, vcpus=2)
    for vcpu in made.machine.vcpus:
        vcpu.rip, vcpu.rsp = CODE, END - 0x100 - 0x4000 * vcpu.index
    yield made
    made.machine.close()

"""A small guest for live patching: every vCPU calls one function for ever and stores what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pvops_core.guest.stacks.returns import TaskStack, no_tasks
from pvops_core.kinds import MachineKind
from pvops_core.livepatch.control.manager import Livepatch
from pvops_core.livepatch.guest import PatchedGuest
from pvops_core.livepatch.payload.area import PayloadArea
from pvops_core.livepatch.payload.builder import PayloadBuilder, Reference
from pvops_core.livepatch.payload.loading import load
from pvops_core.patching.poke import Poker
from tests.machine.conftest import CODE, DATA, Rig

if TYPE_CHECKING:
    from pvops_core.livepatch.payload.model import Command

GUEST_ID = b"the guest's build-id"
VERSION, MINOR, AREA, AREA_PAGES = 0x12000, 0x12100, 0x40000, 32
STORED, STACKS = DATA, 0x60000
PLAIN, NEW, NEWER = 0x11111111, 0x22222222, 0x33333333

# version: mov eax, PLAIN; nop x 3; ret
VERSION_CODE = b"\xb8" + PLAIN.to_bytes(4, "little") + b"\x90\x90\x90\xc3"
# l: call version; mov [edi], eax; jmp l, interrupts on
LOOP = b"\xfb\xe8" + (VERSION - (CODE + 6)).to_bytes(4, "little") + b"\x89\x07\xeb\xf7"


def returning(value: int) -> bytes:
    """``mov eax, value; ret``."""
    return b"\xb8" + value.to_bytes(4, "little") + b"\xc3"


class Patched:
    """The guest, its live patches, and what its vCPUs have stored last."""

    def __init__(
        self,
        kind: MachineKind,
        vcpus: int = 1,
        tasks: Callable[[], Sequence[TaskStack]] = no_tasks,
        **options: int,
    ) -> None:
        self.rig = Rig(kind, vcpus=vcpus, **{"slice_blocks": 50, **options})
        self.machine = self.rig.machine
        self.rig.code(VERSION_CODE, VERSION)
        self.rig.code(returning(7), MINOR)
        self.rig.code(LOOP)
        for vcpu in self.machine.vcpus:
            vcpu.set("rdi", STORED + 4 * vcpu.index)
            vcpu.rsp = STACKS + 0x400 * (vcpu.index + 1)
        self.poker = Poker(self.machine, lambda page: page)
        self.guest = PatchedGuest(
            machine=self.machine,
            poker=self.poker,
            translate=lambda page: page,
            symbols={"version": VERSION, "minor": MINOR},
            build_id=GUEST_ID,
            area=PayloadArea(AREA, AREA_PAGES),
            stack_size=0x400,
            tasks=tasks,
        )
        self.livepatch = Livepatch(self.guest, load)
        self.registry = self.livepatch.registry

    def run(self, ns: int = 20_000) -> str:
        return self.machine.run(max_ns=ns).reason

    def act(self, name: str, command: Command, **more: int) -> int:
        """An action and enough time for it; its result."""
        self.registry.action(name, command, **more)
        self.run(20_000 + 2_000 * len(self.machine.vcpus))
        return self.registry.get(name).rc

    def stored(self) -> set[int]:
        """What the vCPUs have stored since now."""
        for vcpu in self.machine.vcpus:
            self.rig.memory.set_u32(STORED + 4 * vcpu.index, 0)
        self.run()
        return {self.rig.memory.u32(STORED + 4 * vcpu.index) for vcpu in self.machine.vcpus}

    def text(self) -> bytes:
        """All of the guest that is not data: its code, and the pages set aside but for the landing."""
        return self.rig.memory.read(CODE, 0x3000) + self.rig.memory.read(AREA + 0x1000, (AREA_PAGES - 1) * 0x1000)

    def code(self) -> bytes:
        """The guest's own text."""
        return self.rig.memory.read(CODE, 0x3000)

    def builder(self, build_id: bytes, depends: bytes = GUEST_ID) -> PayloadBuilder:
        return PayloadBuilder(self.guest.machine.kind, build_id=build_id, depends=depends, host=GUEST_ID)

    def upload(
        self, name: str, value: int = NEW, *, depends: bytes = GUEST_ID, refer: Sequence[Reference] = ()
    ) -> None:
        """A payload of this name and build-id that makes ``version`` return a value."""
        made = self.builder(name.encode(), depends)
        made.text(f"{name}_version", returning(value), refer)
        made.replace("version", f"{name}_version", old_size=len(VERSION_CODE))
        self.registry.upload(name, made.build())


Make = Callable[..., Patched]


@pytest.fixture(params=list(MachineKind), ids=lambda kind: kind.value)
def kind(request: pytest.FixtureRequest) -> MachineKind:
    found: MachineKind = request.param
    return found


@pytest.fixture
def patched() -> Iterator[Make]:
    """Make guests; they are closed afterwards."""
    made: list[Patched] = []

    def make(kind: MachineKind = MachineKind.X86_64, vcpus: int = 1, **options: Any) -> Patched:  # noqa: ANN401
        made.append(Patched(kind, vcpus, **options))
        return made[-1]

    yield make
    for one in made:
        one.machine.close()


@pytest.fixture
def made(patched: Make) -> Patched:
    return patched()

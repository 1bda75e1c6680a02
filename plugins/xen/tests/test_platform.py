"""What may be chosen of a Xen host: how many event channels, the date, the processor."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import pytest
from pvops_xen.host import XenSettings
from pvops_xen.hypervisor.abi import ENOSPC
from pvops_xen.hypervisor.events import channels, fifo
from pvops_xen.hypervisor.processor.cpuid import cpuid
from pvops_xen.hypervisor.state import Channel, ChannelState
from pvops_xen.platform import XenPlatform

from pvops_core.errors import UsageError
from pvops_core.kinds import MachineKind
from pvops_core.machine import Machine
from pvops_core.machine.cpu.model.cpumodel import MODELS
from pvops_core.machine.cpu.model.features import PLACES

KINDS = [MachineKind.X86_64, MachineKind.PAE]
Make = Callable[..., XenPlatform]


@pytest.fixture
def host() -> Iterator[Make]:
    machines = []

    def make(kind: MachineKind = MachineKind.X86_64, **options: str) -> XenPlatform:
        machines.append(Machine(kind, memory=4 << 20))
        return XenPlatform(machines[-1], None, XenSettings.read(options))  # type: ignore[arg-type]

    yield make
    for machine in machines:
        machine.close()


def allocated(platform: XenPlatform, most: int) -> int:
    """How many channels a domain gets when it asks for ever more."""
    for number in range(most):
        if (port := channels.allocate(platform.hv, Channel(ChannelState.IPI))) < 0:
            assert port == -ENOSPC
            return number
    return most


@pytest.mark.parametrize(
    ("kind", "limit", "with_fifo", "there"),
    [
        (MachineKind.X86_64, "1", False, 1),
        (MachineKind.X86_64, "64", False, 64),
        (MachineKind.X86_64, "64", True, 64),
        (MachineKind.X86_64, "5000", False, 4095),
        (MachineKind.X86_64, "5000", True, 5000),
        (MachineKind.PAE, "5000", False, 1023),
        (MachineKind.PAE, "5000", True, 5000),
    ],
)
def test_a_domain_has_the_channels_that_it_was_given_and_its_interface_has_room_for(
    host: Make, kind: MachineKind, limit: str, there: int, *, with_fifo: bool
) -> None:
    platform = host(kind, event_channels=limit)
    if with_fifo:
        platform.hv.domain.fifo = fifo.Fifo()
    assert allocated(platform, 6000) == there
    port = there // 2 or 1
    channels.close(platform.hv, port)
    assert channels.allocate(platform.hv, Channel(ChannelState.IPI)) == port


def test_what_a_toolstack_is_to_ask(host: Make) -> None:
    assert host().hv.domain.asked is None
    assert host(shutdown="reboot@1.5s").hv.domain.asked == ("reboot", 1_500_000_000)
    for wrong, why in (
        ("reboot", "'' is no virtual time"),
        ("nap@1s", "'nap' is nothing"),
        ("halt@1", "'1' is no"),
    ):
        with pytest.raises(UsageError, match=why):
            host(shutdown=wrong)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seconds", [0, 1_186_704_000, (1 << 32) + 7, (1 << 64) - 1])
def test_the_domain_is_told_the_date(host: Make, kind: MachineKind, seconds: int) -> None:
    hv = host(kind, rtc=str(seconds)).hv
    _version, low, nanoseconds = struct.unpack(
        "<III", hv.memory.read(hv.domain.shared_info + (3072 if kind.bits == 64 else 2304), 12)
    )
    assert (low | hv.memory.u32(hv.domain.shared_info + hv.abi.wc_sec_hi) << 32, nanoseconds) == (seconds, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", sorted(MODELS))
def test_cpuid_has_what_policy_and_processor_both_have(host: Make, kind: MachineKind, model: str) -> None:
    most, platform = host(kind), host(kind, cpu=model)
    hidden = [place for name, place in PLACES.items() if name not in MODELS[model] | {"apic"}]
    for leaf in (0, 1, 2, 7, 0x40000001, 0x80000001, 0x80000008):
        usual = cpuid(most.hv, leaf, 0)
        expected = list(usual)
        for where, register, bit in hidden:
            at = ("eax", "ebx", "ecx", "edx").index(register)
            if where == leaf or ((leaf, where, register) == (0x80000001, 1, "edx") and bit != 11):
                expected[at] &= ~(1 << bit)
        assert cpuid(platform.hv, leaf, 0) == tuple(expected)
        assert platform.cpuid(platform.machine.vcpus[0], leaf, 0) == tuple(expected)
    assert (model in {"max", "x86-64-v2"}) == (cpuid(most.hv, 1, 0) == cpuid(platform.hv, 1, 0))


def test_the_processor_is_intels_of_any_family(host: Make) -> None:
    platform = host(cpu="max,family=6,model=0x1c")
    assert cpuid(platform.hv, 1, 0)[0] == 0x106C1
    assert cpuid(platform.hv, 0, 0)[1:] == (0x756E6547, 0x6C65746E, 0x49656E69)
    with pytest.raises(UsageError, match="no vendor can be set"):
        host(cpu="max,vendor=AuthenticAMD")

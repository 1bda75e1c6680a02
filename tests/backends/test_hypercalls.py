"""Hypercalls of a platform of one's own: made by name and by number, counted, charged, told, and part of snapshots."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from pvops_native import NativePlatform

from pvops_core.backends import HypercallMade, hypercall, load_backends
from pvops_core.errors import UsageError
from pvops_core.session import Session

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu


class Host(NativePlatform):
    @hypercall(1, "ADD", ns=700)
    def add(self, _vcpu: Vcpu, first: int, second: int) -> int:
        return first + second

    @hypercall(2)
    def count(self, _vcpu: Vcpu, *values: int) -> int:
        return len(values)


class Lesser(Host):
    no_hypercall = -1000

    @hypercall(1, "SUBTRACT")
    def subtract(self, _vcpu: Vcpu, first: int, second: int) -> int:
        return first - second


def session(host: type[NativePlatform]) -> Session:
    backends = load_backends().backends
    backend = attrs.evolve(backends["native"], platform=host)
    return Session.of_builtin("6.1-64", "native", backends={"native": backend}, memory=4 << 20)


@pytest.mark.parametrize("nr", [1, "ADD"])
def test_a_hypercall_is_counted_charged_logged_and_told(nr: int | str) -> None:
    with session(Host) as made:
        told: list[HypercallMade] = []
        made.platform.observe(told.append)
        (cpu, *_), began = made.machine.vcpus, made.machine.clock.ns
        assert made.platform.hypercall(cpu, nr, 2, 3) == 5
        assert made.platform.hypercalls == {"ADD": 1}
        assert made.machine.clock.ns == began + 700
        event = made.machine.log.events[-1]
        assert (event.kind, event["name"], event["result"]) == ("hypercall", "ADD", 5)
        assert (event["arg1"], event["arg2"]) == (2, 3)
        assert told == [HypercallMade(0, "ADD", (2, 3), 5, began)]


def test_arguments_fit_the_method() -> None:
    with session(Host) as made:
        (cpu,) = made.machine.vcpus
        assert made.platform.hypercall(cpu, 1, 2) == 2
        assert made.platform.hypercall(cpu, 1, 2, 3, 4, 5) == 5
        assert made.platform.hypercall(cpu, "count", 7, 7, 7) == 3


def test_what_nobody_serves_is_answered_and_named() -> None:
    with session(Host) as made:
        (cpu,) = made.machine.vcpus
        assert made.platform.hypercall(cpu, 77, 1) == -38
        assert made.platform.hypercalls == {"0x4d": 1}


def test_a_name_that_nobody_serves_is_a_mistake() -> None:
    with session(Host) as made:
        (cpu,) = made.machine.vcpus
        with pytest.raises(UsageError, match=r"no hypercall 'AD'; there are ADD, count \(did you mean ADD\?\)"):
            made.platform.hypercall(cpu, "AD", 1, 2)
        assert not made.platform.hypercalls


@pytest.mark.parametrize(("number", "name"), [(1, "OTHER"), (2, "ADD")])
def test_one_call_is_served_by_one_method(number: int, name: str) -> None:
    with pytest.raises(TypeError, match=r"Twice serves hypercall (1|ADD) twice, by first and second"):

        class Twice(NativePlatform):
            @hypercall(1, "ADD")
            def first(self, vcpu: Vcpu) -> int:
                raise NotImplementedError

            @hypercall(number, name)
            def second(self, vcpu: Vcpu) -> int:
                raise NotImplementedError


def test_a_method_that_gives_no_number_is_named() -> None:
    class Silent(Host):
        @hypercall(3, "SAY")
        def say(self, _vcpu: Vcpu) -> int:
            return None  # type: ignore[return-value]

    with session(Silent) as made:
        (cpu,) = made.machine.vcpus
        with pytest.raises(TypeError, match="Silent served hypercall SAY by None, which is no number"):
            made.platform.hypercall(cpu, 3)


def test_a_platform_with_state_of_its_own_takes_nothing_from_a_pcs() -> None:
    class Keeping(Host):
        roots = 0

        def build(self) -> None:
            super().build()
            self.machine.keep(self)

        def save(self) -> int:
            return self.roots

        def load(self, state: int) -> None:
            self.roots = state

    with session(Keeping) as made:
        (cpu,) = made.machine.vcpus
        start = made.machine.snapshot()
        made.platform.hypercall(cpu, 1)
        made.platform.roots = 5  # type: ignore[attr-defined]
        made.platform.emit(b"x")
        made.machine.restore(start)
        assert (made.platform.roots, made.platform.hypercalls, bytes(made.platform.console)) == (0, {}, b"")  # type: ignore[attr-defined]


def test_a_class_below_may_serve_otherwise() -> None:
    with session(Lesser) as made:
        (cpu,) = made.machine.vcpus
        assert made.platform.hypercall(cpu, 1, 5, 3) == 2
        assert made.platform.hypercall(cpu, "ADD", 5, 3) == 8
        assert made.platform.hypercall(cpu, 9) == -1000


def test_counts_go_back_with_a_snapshot() -> None:
    with session(Host) as made:
        (cpu,) = made.machine.vcpus
        made.platform.hypercall(cpu, 1)
        start = made.machine.snapshot()
        made.platform.hypercall(cpu, 1)
        made.machine.restore(start)
        assert made.platform.hypercalls == {"ADD": 1}


def test_what_was_fetched_ends_where_nothing_is_mapped() -> None:
    with session(Host) as made:
        (cpu,) = made.machine.vcpus
        assert len(made.platform.fetched(cpu, 3)) == 3
        cpu.rip = 0x7654_3210_0000
        assert made.platform.fetched(cpu, 3) == b""


@pytest.mark.parametrize("given", [(), (2,), (2, 3, 4)])
def test_a_hook_gives_what_the_method_takes(given: tuple[int, ...]) -> None:
    with session(Host) as made:
        (cpu,) = made.machine.vcpus
        takes = f"hypercall ADD was made with {len(given)} arguments; Host.add takes first, second"
        with pytest.raises(TypeError, match=takes):
            made.platform.hypercall(cpu, "ADD", *given)
        assert not made.platform.hypercalls


@pytest.mark.parametrize("given", [("TICK", 1), ("TICK",), (True, "TICK"), (1, None)])
def test_a_number_comes_before_a_name(given: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match=r"tick serves hypercall.*: a number comes first, then a name"):

        @hypercall(*given)
        def tick(_platform: object, _vcpu: object) -> int:
            return 0


def test_a_hypercall_has_a_number() -> None:
    def tick(_platform: object, _vcpu: object) -> int:
        return 0

    with pytest.raises(TypeError, match=r"tick: @hypercall wants a number"):
        hypercall(tick)  # type: ignore[arg-type]


def test_what_is_kept_can_be_saved_and_loaded() -> None:
    class Count:
        def save(self) -> int:
            return 0

    with (
        session(Host) as made,
        pytest.raises(TypeError, match="Count is to be kept in snapshots and has no method load"),
    ):
        made.machine.keep(Count())  # type: ignore[arg-type]


def test_a_number_may_be_an_enum_s() -> None:
    class Call(enum.IntEnum):
        TICK = 5

    @hypercall(Call.TICK, "TICK")
    def tick(_platform: object, _vcpu: object) -> int:
        return 0

    assert tick(None, None) == 0  # type: ignore[arg-type]

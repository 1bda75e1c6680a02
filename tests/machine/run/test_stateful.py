from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.errors import MachineError
from pvops_core.machine import Beside, Clock, EventLog, MachineKind
from pvops_core.machine.run.eventlog import PACKED, Begun, LogState
from pvops_core.machine.run.stateful import where_not_plain

if TYPE_CHECKING:
    from tests.machine.conftest import Rig

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
PLAIN = st.recursive(
    LEAVES,
    lambda part: st.lists(part) | st.lists(part).map(tuple) | st.dictionaries(st.integers() | st.text(), part),
    max_leaves=20,
)


@given(PLAIN)
def test_plain_data_is_plain(state: object) -> None:
    assert where_not_plain(state) is None


@given(PLAIN, PLAIN, st.sampled_from([object(), {1}, frozenset[int](), bytearray(b"x"), print, 1j]))
def test_one_thing_that_is_not_plain_is_found_where_it_is(before: object, after: object, odd: object) -> None:
    assert where_not_plain((before, {"a": [after, odd]})) == f"state[1]['a'][1]: {type(odd).__qualname__}"


def test_keys_are_numbers_or_text() -> None:
    assert where_not_plain({(1, 2): 3}) == "state: a key of type tuple"
    state = LogState((), Begun(0, b""), ((0, "x", None, {"a": {2}}),), b"")  # type: ignore[dict-item]
    assert where_not_plain(state) == "state.recent[0][3]['a']: set"


def test_what_stays_beside_keeps_its_name() -> None:
    beside = Beside[Counter[str]]("the counter")
    first, second = Counter[str](), Counter[str]()  # equal, and not the same
    third, fourth = Counter[str](), Counter[str]()
    told = [(first, "a"), (second, "a"), (first, "b"), (third, "a#3"), (fourth, "a")]
    assert [beside.name(*each) for each in told] == ["a", "a#2", "a", "a#3", "a#4"]
    assert [beside.thing(name) for name in ("a", "a#2", "a#3", "a#4")] == [first, second, third, fourth]
    assert beside.thing("a#2") is second
    with pytest.raises(MachineError, match="names the counter 'b', which is not here"):
        beside.thing("b")


@pytest.mark.parametrize("vcpus", [1, 3])
def test_every_part_of_a_machine_saves_plain_data_and_takes_it_back(make_rig: Callable[..., Rig], vcpus: int) -> None:
    rig = make_rig(MachineKind.X86_64, vcpus=vcpus)
    rig.code("90 f4")
    rig.machine.gates.map(0x180000, 3)
    rig.machine.gates.bind(1, lambda _cpu: None)
    rig.cpu.raise_irq(0x30)
    rig.cpu.raise_unmaskable()
    rig.machine.log.record("before", text="x", data=b"y", number=-1)
    for _ in range(2):
        snapshot = rig.machine.snapshot()
        for part in snapshot.parts:
            assert where_not_plain(part) is None
        rig.run()
        rig.machine.gates.bind(1, lambda _cpu: None)
        rig.machine.restore(snapshot)
        assert rig.machine.snapshot().parts == snapshot.parts


def test_whoever_keeps_another_object_is_kept_in_memory(make_rig: Callable[..., Rig]) -> None:
    class Old:
        waiting = frozenset({1})

        def save(self) -> object:
            return {1: self.waiting}

        def load(self, state: object) -> None:
            assert isinstance(state, dict)
            self.waiting = state[1]

    old, machine = Old(), make_rig(MachineKind.X86_64).machine
    machine.keep(old)
    snapshot = machine.snapshot()
    old.waiting = frozenset()
    machine.restore(snapshot)
    assert old.waiting == {1}


def test_a_log_takes_the_state_of_another_and_goes_on_alike() -> None:
    log = EventLog(Clock())
    for number in range(PACKED + 3):
        log.record("event", number=number)
    other = EventLog(Clock())
    state = log.save()
    other.load(state)
    for each in (log, other):
        for number in range(PACKED):
            each.record("later", number=number)
    assert other.sha256 == log.sha256
    assert other.events == log.events
    with pytest.raises(MachineError, match="a saved event log has the hash"):
        EventLog(Clock()).load(state._replace(packs=()))

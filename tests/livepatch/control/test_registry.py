"""States and actions: every rule once by hand, then all of them against a simple model."""

from __future__ import annotations

import errno
from collections.abc import Mapping

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pvops_core.livepatch.control.registry import PayloadStatus, Registry, Work, read_name
from pvops_core.livepatch.errors import LivepatchError, PayloadError, errno_of
from pvops_core.livepatch.payload.model import DEFAULT_TIMEOUT_NS, Command, HookPhase, Hooks, Payload, Record, State

GUEST = b"guest"


@attrs.define
class FakeHost:
    """A guest in which every upload succeeds with the payload that a table has for its data."""

    catalogue: Mapping[bytes, Payload]
    build_id: bytes = GUEST
    loaded: set[str] = attrs.field(factory=set)
    scheduled: list[Work] = attrs.field(factory=list)
    called: list[tuple[str, HookPhase]] = attrs.field(factory=list)
    veto: int = 0

    def load(self, name: str, data: bytes, registry: Registry, *, force: bool) -> Payload:
        del registry, force
        if data not in self.catalogue:
            raise PayloadError("cannot be read", path=name, errno=errno.EINVAL)
        self.loaded.add(name)
        return attrs.evolve(self.catalogue[data], name=name)

    def unload(self, payload: Payload) -> None:
        self.loaded.remove(payload.name)

    def call(self, record: Record, phase: HookPhase) -> int:
        if not record.payload.hooks.of(phase):
            return 0
        self.called.append((record.name, phase))
        return self.veto

    def schedule(self, work: Work) -> None:
        self.scheduled.append(work)


def payload(build_id: bytes, depends: bytes = GUEST, **more: object) -> Payload:
    return Payload(name="", build_id=build_id, depends=depends, **more)  # type: ignore[arg-type]


CATALOGUE = {
    b"hello": payload(b"hello", metadata=b"LIVEPATCH_RULEZ\0"),
    b"bye": payload(b"bye", b"hello"),
    b"replace": payload(b"replace"),
    b"data": payload(b"data", reappliable=False),
    b"hooked": payload(b"hooked", hooks=Hooks({HookPhase.PREAPPLY: (1,), HookPhase.PREREVERT: (2,)})),
}


@pytest.fixture
def host() -> FakeHost:
    return FakeHost(CATALOGUE)


@pytest.fixture
def registry(host: FakeHost) -> Registry:
    made = Registry(host)
    for name in CATALOGUE:
        made.upload(name.decode(), name)
    return made


def act(registry: Registry, name: str, command: int, rc: int = 0, **more: int) -> None:
    """An action that is scheduled and ends at once."""
    registry.action(name, command, **more)
    assert registry.get(name).rc == -errno.EAGAIN
    registry.finish(rc)


def refused(number: int) -> pytest.RaisesExc[LivepatchError]:
    return pytest.RaisesExc(LivepatchError, check=lambda error: error.errno == number)


def test_the_way_up_and_down(registry: Registry) -> None:
    act(registry, "hello", Command.APPLY)
    act(registry, "bye", Command.APPLY)
    assert [record.name for record in registry.applied] == ["hello", "bye"]
    act(registry, "replace", Command.REPLACE)
    assert [record.name for record in registry.applied] == ["replace"]
    assert registry.get("hello") == registry.get("bye") == PayloadStatus(State.CHECKED, 0)
    act(registry, "replace", Command.REVERT)
    assert not registry.applied


def test_upload_refuses(registry: Registry, host: FakeHost) -> None:
    for name, data, flags, number in (
        ("hello", b"bye", 0, errno.EEXIST),
        ("new", b"", 0, errno.EINVAL),
        ("new", bytes((2 << 20) + 1), 0, errno.EINVAL),
        ("n" * 128, b"bye", 0, errno.EINVAL),
        ("new", b"bye", 2, errno.EINVAL),
        ("new", b"nonsense", 0, errno.EINVAL),
    ):
        version, loaded = registry.version, set(host.loaded)
        with pytest.raises((LivepatchError, PayloadError)) as caught:
            registry.upload(name, data, flags=flags)
        assert errno_of(caught.value) == number
        assert (registry.version, host.loaded) == (version, loaded)


def test_unknown_flags_pass_with_force(registry: Registry) -> None:
    registry.upload("n" * 127, b"bye", flags=3)
    assert registry.get("n" * 127) == PayloadStatus(State.CHECKED, 0)


@pytest.mark.parametrize("raw", [b"", b"no end", b"x" * 128 + b"\0"])
def test_bad_names(raw: bytes) -> None:
    with refused(errno.EINVAL):
        read_name(raw)


def test_names() -> None:
    assert read_name(b"x" * 127 + b"\0") == "x" * 127
    assert read_name(b"a\0b\0") == "a"
    with refused(errno.EINVAL):
        read_name(b"a\0", b"\0\1\0")


def test_actions_refuse(registry: Registry) -> None:
    with refused(errno.ENOENT):
        registry.action("nobody", Command.APPLY)
    with refused(errno.EOPNOTSUPP):
        registry.action("hello", 5)
    with refused(errno.EOPNOTSUPP):
        registry.action("hello", 0)
    for wrong in ({"pad": 1}, {"flags": 2}, {"timeout_ns": -1}):
        with refused(errno.EINVAL):
            registry.action("hello", Command.APPLY, **wrong)
    with refused(errno.EINVAL):
        registry.action("bye", Command.APPLY)
    act(registry, "hello", Command.APPLY)
    with refused(errno.EINVAL):
        registry.action("hello", Command.UNLOAD)
    with refused(errno.EINVAL):
        registry.action("replace", Command.APPLY)
    with refused(errno.EINVAL):
        registry.action("bye", Command.REPLACE)
    act(registry, "bye", Command.APPLY)
    with refused(errno.EBUSY):
        registry.action("hello", Command.REVERT)


def test_nodeps_skips_the_chain(registry: Registry) -> None:
    act(registry, "bye", Command.APPLY, flags=1)
    act(registry, "hello", Command.APPLY, flags=1)
    assert [record.name for record in registry.applied] == ["bye", "hello"]


def test_one_thing_at_a_time(registry: Registry, host: FakeHost) -> None:
    registry.action("hello", Command.APPLY, timeout_ns=5)
    assert host.scheduled[-1].timeout_ns == 5
    for name, command in (("hello", Command.APPLY), ("hello", Command.UNLOAD), ("replace", Command.APPLY)):
        with refused(errno.EBUSY):
            registry.action(name, command)
    assert registry.get("replace").rc == 0, "only the one under way is under way"
    registry.action("replace", Command.UNLOAD)
    registry.finish(-errno.EBUSY)
    assert registry.get("hello") == PayloadStatus(State.CHECKED, -errno.EBUSY)


def test_in_the_wrong_state_nothing_happens(registry: Registry, host: FakeHost) -> None:
    registry.action("hello", Command.REVERT)
    act(registry, "hello", Command.APPLY)
    registry.action("hello", Command.APPLY)
    registry.action("hello", Command.REPLACE)
    assert len(host.scheduled) == 1
    assert host.scheduled[0].timeout_ns == DEFAULT_TIMEOUT_NS
    assert registry.get("hello") == PayloadStatus(State.APPLIED, 0)


def test_data_is_not_applied_twice(registry: Registry) -> None:
    act(registry, "data", Command.APPLY)
    act(registry, "data", Command.REVERT)
    registry.action("data", Command.APPLY)
    assert registry.get("data") == PayloadStatus(State.CHECKED, -errno.EINVAL)
    registry.action("data", Command.UNLOAD)
    registry.upload("data", b"data")
    act(registry, "data", Command.APPLY)


def test_veto(registry: Registry, host: FakeHost) -> None:
    host.veto = -errno.ENODEV
    with refused(errno.ENODEV):
        registry.action("hooked", Command.APPLY)
    assert registry.get("hooked") == PayloadStatus(State.CHECKED, -errno.ENODEV)
    assert registry.work is None
    host.veto = 0
    act(registry, "hooked", Command.APPLY)
    host.veto = 7
    with refused(7):
        registry.action("hooked", Command.REVERT)
    assert registry.get("hooked") == PayloadStatus(State.APPLIED, -7)


def test_replace_runs_no_hooks_outside_the_quiet_zone(registry: Registry) -> None:
    with refused(errno.EOPNOTSUPP):
        registry.action("hooked", Command.REPLACE)
    act(registry, "hooked", Command.APPLY)
    with refused(errno.EOPNOTSUPP):
        registry.action("replace", Command.REPLACE)


def test_list(registry: Registry) -> None:
    page = registry.list(1, 2)
    assert [name for name, *_ in page.entries] == ["bye", "replace"]
    assert (page.remaining, page.name_total_size, page.metadata_total_size) == (2, 4 + 8, 0)
    sizes = registry.list(0, 0)
    assert (sizes.entries, sizes.remaining) == ((), 5)
    assert (sizes.name_total_size, sizes.metadata_total_size) == (6 + 4 + 8 + 5 + 7, 16)
    assert [len(page.entries) for page in registry.pages(2)] == [2, 2, 1]
    for wrong, number in (
        ({"idx": 5}, errno.EINVAL),
        ({"nr": 1025}, errno.E2BIG),
        ({"pad": 1}, errno.EINVAL),
        ({"idx": -1}, errno.EINVAL),
    ):
        with refused(number):
            registry.list(**wrong)
    assert Registry(FakeHost({})).list(3, 4).entries == ()


def test_snapshots(registry: Registry) -> None:
    act(registry, "hello", Command.APPLY)
    registry.action("bye", Command.APPLY)
    state = registry.save()
    registry.finish(0)
    act(registry, "replace", Command.REPLACE)
    registry.action("bye", Command.UNLOAD)
    registry.load(state)
    assert [record.name for record in registry.applied] == ["hello"]
    assert registry.get("bye") == PayloadStatus(State.CHECKED, -errno.EAGAIN)
    assert registry.get("replace") == PayloadStatus(State.CHECKED, 0)
    registry.finish(0)
    assert [record.name for record in registry.applied] == ["hello", "bye"]


NAMES = tuple(name.decode() for name in CATALOGUE)


class Machine(RuleBasedStateMachine):
    """The registry beside a model of four variables: who is there, the stack, who was reverted, what is under way."""

    def __init__(self) -> None:
        super().__init__()
        self.host = FakeHost(CATALOGUE)
        self.registry = Registry(self.host)
        self.there: list[str] = []
        self.stack: list[str] = []
        self.reverted: set[str] = set()
        self.pending: tuple[str, Command] | None = None

    def attempt(self, name: str, command: Command, *, nodeps: bool = False) -> int:
        try:
            self.registry.action(name, command, flags=int(nodeps))
        except LivepatchError as error:
            return error.errno
        return 0

    @rule(name=st.sampled_from(NAMES))
    def upload(self, name: str) -> None:
        if name in self.there:
            with refused(errno.EEXIST):
                self.registry.upload(name, name.encode())
        else:
            self.registry.upload(name, name.encode())
            self.there.append(name)
            self.reverted.discard(name)

    @rule(name=st.sampled_from(NAMES))
    def unload(self, name: str) -> None:
        found = self.attempt(name, Command.UNLOAD)
        if name not in self.there:
            assert found == errno.ENOENT
        elif self.pending and self.pending[0] == name:
            assert found == errno.EBUSY
        elif name in self.stack:
            assert found == errno.EINVAL
        else:
            assert found == 0
            self.there.remove(name)

    def expected(self, name: str, command: Command, *, nodeps: bool) -> tuple[int, bool]:  # noqa: PLR0911 - one a rule
        """The errno, and whether something is scheduled."""
        if name not in self.there:
            return errno.ENOENT, False
        if self.pending and self.pending[0] == name:
            return errno.EBUSY, False
        if (name in self.stack) != (command is Command.REVERT):
            return 0, False
        if command is Command.REVERT and self.stack[-1] != name:
            return errno.EBUSY, False
        if command is Command.APPLY and name == "data" and name in self.reverted:
            return 0, False
        wanted = self.stack[-1].encode() if self.stack and command is Command.APPLY else GUEST
        if command is not Command.REVERT and not nodeps and CATALOGUE[name.encode()].depends != wanted:
            return errno.EINVAL, False
        if command is Command.REPLACE and "hooked" in {name, *self.stack}:
            return errno.EOPNOTSUPP, False
        return (errno.EBUSY, False) if self.pending else (0, True)

    @rule(
        name=st.sampled_from(NAMES),
        command=st.sampled_from([Command.APPLY, Command.REVERT, Command.REPLACE]),
        nodeps=st.booleans(),
    )
    def act(self, name: str, command: Command, nodeps: bool) -> None:  # noqa: FBT001 - hypothesis passes by name
        nodeps = nodeps and command is Command.APPLY
        number, scheduled = self.expected(name, command, nodeps=nodeps)
        assert self.attempt(name, command, nodeps=nodeps) == number
        if scheduled:
            self.pending = name, command

    @precondition(lambda self: self.pending)
    @rule(rc=st.sampled_from([0, 0, -errno.EBUSY]))
    def finish(self, rc: int) -> None:
        assert self.pending is not None
        (name, command), self.pending = self.pending, None
        self.registry.finish(rc)
        assert self.registry.get(name).rc == rc
        if rc:
            return
        if command is Command.REVERT:
            self.reverted.add(self.stack.pop())
        else:
            if command is Command.REPLACE:
                self.reverted.update(self.stack)
                self.stack.clear()
            self.stack.append(name)

    @invariant()
    def agrees(self) -> None:
        assert [record.name for record in self.registry.records] == self.there
        assert [record.name for record in self.registry.applied] == self.stack
        assert self.host.loaded == set(self.there)
        for name in self.there:
            assert (self.registry.get(name).state is State.APPLIED) == (name in self.stack)


TestAgainstTheModel = Machine.TestCase
TestAgainstTheModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)

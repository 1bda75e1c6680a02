"""A fault at every step of every action: text wholly old or wholly new, states right, guest alive."""

from __future__ import annotations

import errno
import itertools

import pytest

from pvops_core.errors import MachineError
from pvops_core.livepatch.payload.model import Command, HookPhase, State
from pvops_core.patching.poke import PokeStep
from tests.livepatch.conftest import NEW, NEWER, PLAIN, VERSION_CODE, Make, Patched, returning


def prepared(patched: Make, vcpus: int, command: Command) -> Patched:
    """``hello``, ``bye`` above it, ``other`` to replace both; the first two applied unless the test applies them."""
    made = patched(vcpus=vcpus)
    made.upload("hello", NEW)
    made.upload("bye", NEWER, depends=b"hello")
    made.upload("other", 0x44444444)
    made.run(5_000)
    if command is not Command.APPLY:
        assert made.act("hello", Command.APPLY) == 0
        assert made.act("bye", Command.APPLY) == 0
    return made


NAMES = {Command.APPLY: "hello", Command.REVERT: "bye", Command.REPLACE: "other"}
BEFORE = {Command.APPLY: PLAIN, Command.REVERT: NEWER, Command.REPLACE: NEWER}
AFTER = {Command.APPLY: NEW, Command.REVERT: NEW, Command.REPLACE: 0x44444444}


def states(made: Patched) -> list[State]:
    return [record.state for record in made.registry.records]


@pytest.mark.parametrize("vcpus", [1, 2, 8, 72])
@pytest.mark.parametrize("command", list(NAMES))
def test_a_poke_that_fails_at_any_step(vcpus: int, command: Command, patched: Make) -> None:
    made = prepared(patched, vcpus, command)
    name, code, before = NAMES[command], made.code(), states(made)
    for step in PokeStep:

        def fail(at: PokeStep, step: PokeStep = step) -> None:
            if at is step:
                raise MachineError(f"injected at {step.value}")

        made.poker.observer = fail
        assert made.act(name, command) == -errno.EIO
        assert made.code() == code
        assert states(made) == before
    made.poker.observer = lambda _step: None
    assert not any(vcpu.held for vcpu in made.machine.vcpus)
    made.run(20_000 * vcpus)
    assert made.stored() <= {BEFORE[command], 0}
    assert made.act(name, command) == 0
    made.run(20_000 * vcpus)
    assert made.stored() <= {AFTER[command], 0}


@pytest.mark.parametrize("vcpus", [1, 2, 8, 72])
@pytest.mark.parametrize("command", list(NAMES))
@pytest.mark.parametrize("what", ["perform", "publish", "_spans", "_say"])
def test_an_error_anywhere_else(
    vcpus: int, command: Command, what: str, patched: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even a mistake of ours, before the text or after it, leaves one or the other."""
    made = prepared(patched, vcpus, command)
    name, before = NAMES[command], made.code()
    target = (
        __import__("pvops_core.livepatch.rendezvous.action", fromlist=["act"]) if what == "perform" else made.livepatch
    )
    real, calls = getattr(target, what), itertools.count()

    def fail_once(*arguments: object) -> object:
        if next(calls) == 0:
            raise RuntimeError("injected")
        return real(*arguments)

    monkeypatch.setattr(target, what, fail_once)
    with pytest.raises(RuntimeError, match="injected"):
        made.act(name, command)
    monkeypatch.undo()
    after = made.code()
    is_new = after != before
    assert made.registry.work is None
    assert not any(vcpu.held for vcpu in made.machine.vcpus)
    wanted = {AFTER[command]} if is_new else {BEFORE[command]}
    made.run(20_000 * vcpus)
    assert made.stored() <= wanted | {0}
    top = made.registry.applied[-1].name if made.registry.applied else None
    tops = {PLAIN: None, NEW: "hello", NEWER: "bye", 0x44444444: "other"}
    assert top == tops[wanted.pop()], "the registry says what the text is"


@pytest.mark.parametrize("seed", range(8))
def test_nobody_ever_executes_a_mix(seed: int, patched: Make) -> None:
    """Random times, eight vCPUs in short slices, many rounds."""
    made = patched(vcpus=8, seed=seed, slice_blocks=5)
    made.upload("hello", NEW)
    made.upload("other", NEWER)
    code = made.code()
    for round_ in range(6):
        made.run(100 + 37 * seed + 11 * round_)
        assert made.act("hello", Command.APPLY) == 0
        assert made.stored() <= {NEW, 0}
        assert made.act("other", Command.REPLACE) == 0
        assert made.stored() <= {NEWER, 0}
        assert made.act("other", Command.REVERT) == 0
        assert made.stored() <= {PLAIN, 0}
    assert made.code() == code


def hooked(made: Patched, name: str, value: int) -> None:
    """A payload with a load and an unload hook, so that a replace is several transactions."""
    builder = made.builder(name.encode())
    builder.text(f"{name}_version", returning(value))
    builder.replace("version", f"{name}_version", old_size=len(VERSION_CODE))
    builder.text(f"{name}_hook", b"\xc3")
    builder.hook(HookPhase.LOAD, f"{name}_hook")
    builder.hook(HookPhase.UNLOAD, f"{name}_hook")
    made.registry.upload(name, builder.build())


@pytest.mark.parametrize("vcpus", [1, 2, 8, 72])
def test_a_fault_between_the_transactions_of_a_replace_with_hooks(vcpus: int, patched: Make) -> None:
    """Each step of each transaction in turn; what was written before it is written back."""
    made = patched(vcpus=vcpus)
    hooked(made, "one", NEW)
    hooked(made, "two", NEWER)
    made.run(5_000)
    assert made.act("one", Command.APPLY) == 0
    code, before = made.code(), states(made)
    steps = 0
    for wanted in itertools.count():
        seen = itertools.count()

        def fail(_step: PokeStep, wanted: int = wanted, seen: itertools.count[int] = seen) -> None:
            if next(seen) == wanted:
                raise MachineError("injected")

        made.poker.observer = fail
        rc = made.act("two", Command.REPLACE)
        if rc == 0:
            steps = wanted
            break
        assert rc == -errno.EIO
        assert made.code() == code
        assert states(made) == before
        made.poker.observer = lambda _step: None
        assert made.stored() <= {NEW, 0}
    assert steps == 2 * len(PokeStep), "two transactions: the old one back, the new one in"
    made.poker.observer = lambda _step: None
    assert made.stored() <= {NEWER, 0}


def test_text_that_cannot_even_be_written_back_ends_the_guest(patched: Make) -> None:
    """As Xen panics: neither state would be true."""
    made = patched()
    hooked(made, "one", NEW)
    hooked(made, "two", NEWER)
    made.run(5_000)
    assert made.act("one", Command.APPLY) == 0
    writes = itertools.count()

    def fail(step: PokeStep) -> None:
        if step is PokeStep.WRITE and next(writes) >= 1:
            raise MachineError("injected for good")

    made.poker.observer = fail
    made.registry.action("two", Command.REPLACE)
    stop = made.machine.run(max_ns=50_000)
    assert stop.reason == "crash"
    assert "partially applied payload" in stop.detail

"""Live patches that do not go as wished: one that a vCPU is too late for, and a stack taken apart in disorder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.livepatch.builtin import WORD, live_patches
from pvops_core.livepatch.control.script import Script, read_script
from pvops_core.livepatch.control.tool import Tool
from pvops_core.livepatch.payload.builder import PayloadBuilder
from pvops_core.scenarios.acts import Act, Check, Role, works
from pvops_core.scenarios.model import Scenario

if TYPE_CHECKING:
    from pvops_core.livepatch.control.manager import Livepatch
    from pvops_core.livepatch.guest import PatchedGuest
    from pvops_core.scenarios.stage import Stage, StagedRun
    from pvops_core.session import Session

LAYOUT: Final = "6.1-64"
FUNCTION: Final = "memset"
# mov r8, rdi; mov rcx, rdx; mov eax, esi; rep stosb; mov rax, r8; ret: what memset does, in another way
CODE: Final = bytes.fromhex("4989f8 4889d1 89f0 f3aa 4c89c0 c3")
EARLY_NS: Final = 100_000
SHORT_NS: Final = 20_000


@attrs.define
class LivepatchOutput:
    """What the live patches of a run said: lines, exit codes, messages, and the text before and after."""

    lines: list[str] = attrs.field(factory=list)
    codes: list[int] = attrs.field(factory=list)
    patches: Livepatch | None = None

    @property
    def messages(self) -> Sequence[str]:
        """What the core logged."""
        return self.patches.messages if self.patches is not None else ()


def payload(guest: PatchedGuest, name: str, depends: bytes = b"") -> bytes:
    """A payload of a name, which is its build-id, that replaces memset."""
    made = PayloadBuilder(
        guest.machine.kind, build_id=name.encode(), depends=depends or guest.build_id, host=guest.build_id
    )
    made.text(f"{name}_{FUNCTION}", CODE)
    made.replace(FUNCTION, f"{name}_{FUNCTION}", old_size=15)
    return made.build()


def scripted(told: LivepatchOutput, script: str) -> Callable[[Session], None]:
    """Prepares a session to follow a script, whose files are payloads by name; ``bye`` depends on ``hello``."""

    def prepare(session: Session) -> None:
        patches = told.patches = live_patches(session)
        files = {name: payload(patches.guest, name) for name in ("hello", "replace")}
        files["bye"] = payload(patches.guest, "bye", b"hello")
        tool = Tool(patches, files.__getitem__, told.lines.append)
        steps = read_script(script, "scenario")
        Script(
            session.machine, tool, steps, lambda _step, code: told.codes.append(code), session.platform.console
        ).start()

    return prepare


def play_timeout(stage: Stage) -> Iterator[Act]:
    """A request that may wait 20 us while the guest boots with interrupts off, then one with the usual 30 ms."""
    told = LivepatchOutput()

    def hurried(session: Session) -> None:
        scripted(told, "1us upload hello hello")(session)

        def ask() -> int | None:
            if session.machine.clock.ns < EARLY_NS:
                return EARLY_NS
            session.machine.unwatch(ask)
            assert told.patches is not None, "prepared above"
            told.patches.registry.action("hello", 3, timeout_ns=SHORT_NS)
            return None

        session.machine.watch(ask)

    run = stage.run(LAYOUT, "native", WORD, prepare=hurried)
    status = told.patches.registry.get("hello") if told.patches is not None else None
    message = next((text for text in told.messages if "Timed out" in text), "")
    unchanged = works(
        Role.REFUSED,
        "a request that waits 20 us, made while the guest boots",
        run,
        [f"{message}."],
        [
            Check(
                "it times out in phase CPU, naming the vCPU and why", "CPU quiesce" in message and "vcpu 0" in message
            ),
            Check("because its interrupts are off", "interrupts are off" in message),
            Check("the result is -EBUSY and the payload stays CHECKED", status is not None and status.rc == -16),
            Check("memset is as it was built", _first(run) == run.built(run.guest.symbols[FUNCTION], 1)),
        ],
    )
    yield attrs.evolve(unchanged, ending=f"late, nothing patched; {run.ending}")
    patient = LivepatchOutput()
    run = stage.run(LAYOUT, "native", WORD, prepare=scripted(patient, "1us upload hello hello\n100us apply hello"))
    yield works(
        Role.ALLOWED,
        "the same request with 30 ms",
        run,
        patient.lines,
        [Check("it is applied once interrupts are on", patient.codes == [0, 0] and _first(run) == b"\xe9")],
    )


def _first(run: StagedRun) -> bytes:
    return run.now(run.guest.symbols[FUNCTION], 1)


def play_stacked(stage: Stage) -> Iterator[Act]:
    """Payloads applied and reverted out of order, then in order, then replaced as one."""
    head = "300us upload hello hello\n+1us upload bye bye\n+1us upload replace replace\n"
    wrong = LivepatchOutput()
    script = head + "+1us apply bye\n+1us apply hello\n+1us apply bye\n+1us apply replace\n+1us revert hello"
    run = stage.run(LAYOUT, "native", WORD, prepare=scripted(wrong, script))
    yield works(
        Role.REFUSED,
        "bye before hello, replace applied on top, hello reverted under bye",
        run,
        wrong.lines,
        [
            Check("bye cannot come before hello (EINVAL)", wrong.codes[3] == 1),
            Check("what depends on the guest cannot come on top (EINVAL)", wrong.codes[6] == 1),
            Check("hello cannot go while bye is on it (EBUSY, try again)", wrong.codes[7] == 2),
            Check("hello and bye stay applied", _stack(wrong) == ["hello", "bye"]),
        ],
    )
    right = LivepatchOutput()
    script = head + "+1us apply hello\n+1us apply bye\n+1us replace replace\n+1us revert replace"
    run = stage.run(LAYOUT, "native", WORD, prepare=scripted(right, script))
    yield works(
        Role.ALLOWED,
        "hello, bye on it, both replaced at once, that reverted",
        run,
        right.lines,
        [
            Check("every command succeeds", set(right.codes) == {0} and not _stack(right)),
            Check("memset is as it was built", _first(run) == run.built(run.guest.symbols[FUNCTION], 1)),
        ],
    )


def _stack(told: LivepatchOutput) -> list[str]:
    return [record.name for record in told.patches.registry.applied] if told.patches is not None else []


TIMEOUT: Final = Scenario(
    name="livepatch-timeout",
    summary="a live patch whose vCPUs do not come in time patches nothing, and says who did not come",
    commits=(),
    play=play_timeout,
)
STACKED: Final = Scenario(
    name="livepatch-stacked",
    summary="live patches that depend on each other go on and off in order, or are refused",
    commits=(),
    play=play_stacked,
)

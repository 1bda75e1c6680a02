"""What a small guest that tests something says of itself, in the words of the Xen Test Framework.

Source: XTF's common/report.c ("Test result: SUCCESS") and xtf-runner, for which one without it has crashed.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from typing import Final

import attrs

from pvops_core.runs.observation import Observation, Outcome

_RESULT: Final = re.compile(r"^Test result: (SUCCESS|SKIP|ERROR|FAILURE)\b", re.MULTILINE)
_WHY: Final = re.compile(r"^(?:Skip|Fail|Failure|Error)\b:? *(.+)$|^(PANIC: .+)$", re.MULTILINE)
_BEFORE: Final = re.compile(r"^(.*\S.*)\n\s*Test result: ", re.MULTILINE)
_MOST: Final = 20


class Verdict(enum.Enum):
    """From the best to the worst."""

    SUCCESS = "SUCCESS"
    SKIP = "SKIP"
    ERROR = "ERROR"
    """The test itself went wrong, or nothing ran since it asks for what cannot be."""
    FAILURE = "FAILURE"
    CRASH = "CRASH"
    """No verdict was seen, or the guest did not come to its own end behind it."""

    @property
    def exit_code(self) -> int:
        """0, 5 or 6: a failure, a crash."""
        if self is Verdict.CRASH:
            return 6
        return 0 if self in {Verdict.SUCCESS, Verdict.SKIP} else 5


def verdict_of(observation: Observation) -> Verdict:
    """The last that the guest's console says, if the guest then ended of its own will."""
    if observation.outcome is Outcome.UNSUPPORTED:
        return Verdict.ERROR
    found = _RESULT.findall(observation.console.replace("\r", ""))
    ended = observation.outcome.finished or observation.outcome is Outcome.UNTIL
    return Verdict(found[-1]) if found and ended else Verdict.CRASH


def why(observation: Observation) -> tuple[str, ...]:
    """Why it is no success, in the guest's words, or in ours where it crashed: at most 20 lines.

    A guest that gives no reason in a line for that has its last line before the verdict taken for one.
    """
    verdict = verdict_of(observation)
    if verdict is Verdict.SUCCESS:
        return ()
    console = observation.console.replace("\r", "")
    said = [(match[1] or match[2]).strip() for match in _WHY.finditer(console)][:_MOST]
    if verdict is Verdict.CRASH or observation.outcome is Outcome.UNSUPPORTED:
        return (": ".join(filter(None, (observation.outcome.value, observation.reason))), *said)
    return tuple(said or [match[1].strip() for match in _BEFORE.finditer(console)][-1:])


@attrs.frozen
class Judged:
    """A run, and the verdict that was expected of it; None: any that is no failure."""

    observation: Observation
    expected: Verdict | None = None

    @property
    def verdict(self) -> Verdict:
        """What its guest said."""
        return verdict_of(self.observation)

    @property
    def as_expected(self) -> bool | None:
        """Whether the verdict is the expected one; None where none was.

        A run that was cut short, by a time-out or a failure of ours, is never what was expected.
        """
        if self.expected is None:
            return None
        whole = self.observation.outcome in {
            Outcome.POWEROFF,
            Outcome.REBOOT,
            Outcome.HALTED,
            Outcome.UNTIL,
            Outcome.CRASH,
        }
        return whole and self.verdict is self.expected

    @property
    def why(self) -> tuple[str, ...]:
        """Why it is no success, or not what was expected, which comes first then."""
        reasons = why(self.observation)
        if self.expected in {None, self.verdict}:
            return reasons
        return (f"{self.expected.name} was expected", *reasons)

    @property
    def exit_code(self) -> int:
        """0 for what was expected and, where nothing was, for no failure; 5 for a success that was not."""
        own = self.observation.outcome.exit_code
        if self.as_expected:
            return 0
        if own in {2, 4}:
            return own
        return self.verdict.exit_code or (0 if self.expected is None else 5)


def exit_code_of(runs: Iterable[Judged]) -> int:
    """The worst of all: 4 where pvops failed, 6 for a crash, 5 for a failure, 2 for a wish that cannot be met, or 0."""
    codes = {each.exit_code for each in runs}
    return next((code for code in (4, 6, 5, 2) if code in codes), 0)

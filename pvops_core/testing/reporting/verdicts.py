"""From reports of tests to one verdict on every op: the worst that any of them saw."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    import pytest


class LawVerdict(enum.IntEnum):
    """What is known of an op, in order of badness."""

    SKIP = 0
    """Nothing could be tried."""
    SUCCESS = 1
    FAILURE = 2
    """A check saw something wrong."""
    CRASH = 3
    """No verdict was seen: the guest or the backend's code broke down."""


CRASHES: Final = frozenset({"pvops_crash"})


@attrs.define
class OpVerdict:
    """What the tests of one op came to.

    Attributes:
        op: the op.
        verdict: the worst.
        passed: how many tests passed.
        failed: how many did not.
        skipped: how many could not be tried.
        reasons: of skips, or the first line of each failure.
    """

    op: str
    verdict: LawVerdict = LawVerdict.SKIP
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    reasons: dict[str, None] = attrs.field(factory=dict)

    @property
    def reason(self) -> str:
        """Why it was skipped or has failed; empty where all is well."""
        return "" if self.verdict is LawVerdict.SUCCESS else "; ".join(self.reasons)


def verdicts(reports: Iterable[Any]) -> Mapping[str, OpVerdict]:
    """Verdicts by op, in alphabetical order.

    Args:
        reports: pytest's reports of all phases of all tests.
    """
    found: dict[str, OpVerdict] = {}
    for report in reports:
        properties = dict(getattr(report, "user_properties", ()))
        if "pvops_op" in properties:
            op = properties["pvops_op"]
            _add(found.setdefault(op, OpVerdict(op)), report, properties)
    return dict(sorted(found.items()))


def _add(one: OpVerdict, report: pytest.TestReport, properties: Mapping[str, str]) -> None:
    if report.failed:
        one.failed += 1
        crashed = bool(CRASHES & properties.keys()) or "CallError" in str(report.longrepr)
        _worse(one, LawVerdict.CRASH if crashed else LawVerdict.FAILURE, _message(report))
    elif report.skipped:
        one.skipped += 1
        if one.verdict is LawVerdict.SKIP:
            one.reasons[_message(report)] = None
    elif report.when == "call":
        one.passed += 1
        _worse(one, LawVerdict.SUCCESS, "")


def _worse(one: OpVerdict, verdict: LawVerdict, reason: str) -> None:
    if verdict > one.verdict:
        one.verdict = verdict
        one.reasons.clear()
    if verdict is one.verdict and reason:
        one.reasons[reason] = None


def _message(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message if crash else report.longrepr)
    return text.splitlines()[0] if text else "failed"


def table(found: Mapping[str, OpVerdict]) -> Iterator[str]:
    """Lines for people."""
    width = max(map(len, found), default=0)
    for one in found.values():
        counts = f"{one.passed:4} passed {one.failed:3} failed {one.skipped:3} skipped"
        yield f"{one.op:{width}}  {one.verdict.name:7}  {counts}  {one.reason}".rstrip()
    totals = (f"{sum(one.verdict is verdict for one in found.values())} {verdict.name}" for verdict in LawVerdict)
    yield f"{len(found)} ops: {', '.join(totals)}"


def ktap(found: Mapping[str, OpVerdict]) -> str:
    """The same in the kernel's own format (Documentation/dev-tools/ktap.rst)."""
    lines = ["KTAP version 1", f"1..{len(found)}"]
    for number, one in enumerate(found.values(), 1):
        result = "not ok" if one.verdict >= LawVerdict.FAILURE else "ok"
        match one.verdict:
            case LawVerdict.SUCCESS:
                directive = ""
            case LawVerdict.SKIP:
                directive = f" # SKIP {one.reason}"
            case _:
                directive = f" # {one.verdict.name}: {one.reason}"
        lines.append(f"{result} {number} {one.op}{directive}")
    return "\n".join(lines) + "\n"

"""What a broken law says: what is wrong as a sentence, then the law, the hook, and what its last call did."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pvops_core.backends.blame import own_trace
from pvops_core.errors import HookError
from pvops_core.testing.conformance.late import LateMachine
from pvops_core.testing.reporting.explain import shown

if TYPE_CHECKING:
    from pvops_core.errors import PvopsError
    from pvops_core.switchboard.implementation import Implementation
    from pvops_core.testing.conformance.fixture import Fixture
    from pvops_core.testing.conformance.laws import Law
    from pvops_core.testing.effect import Effect


def told(error: AssertionError, law: Law, fixture: Fixture, op: str) -> str:
    """The lines for an author.

    Args:
        error: what the law's check raised.
        law: the law.
        fixture: where it was tried.
        op: the op that it was tried on.
    """
    return "\n".join([sentence(error), *_more(law, fixture, op)])


def note(error: PvopsError, law: Law, fixture: Fixture, op: str) -> None:
    """Have an error that ended a law's check say which law it was, and the rest."""
    for line in _more(law, fixture, op):
        error.add_note(line)


def whole(error: BaseException) -> str:
    """What the report of a failed test of the suite is: the sentence, what was noted, the author's own frames."""
    notes = getattr(error, "__notes__", ())
    if isinstance(error, AssertionError):
        return "\n".join([sentence(error), *notes])
    if isinstance(error, HookError):
        where = f"  its place: {error.where()}"
        return "\n".join(filter(None, [error.message, *notes, where, error.frames]))
    crash = f"{type(error).__name__}: {sentence(error)}"
    return "\n".join(filter(None, [crash, *notes, own_trace(error)]))


def sentence(error: BaseException) -> str:
    """What an assertion says, without what pytest makes of its code."""
    lines = str(error).splitlines()
    end = next((number for number, line in enumerate(lines) if number and line.startswith("assert ")), len(lines))
    return "\n".join(lines[:end]) or type(error).__name__


def _more(law: Law, fixture: Fixture, op: str) -> Iterator[str]:
    yield f"  the law:   {law.name.replace('_', ' ')}. {' '.join((inspect.getdoc(law.check) or '').split())}".rstrip()
    yield f"  the hook:  {_hook(fixture.kept.session.ops.implementation(op))}"
    calls = [done for done in fixture.call.made if done.what == op]
    if calls:
        yield f"  its call:  {_did(calls[-1])}"
        yield from (f"  its event: {shown(event)}" for event in calls[-1].events)
    if isinstance(fixture.kept, LateMachine):
        yield f"  its boot:  {fixture.kept.unbooted}"


def _hook(implementation: Implementation) -> str:
    function = implementation.function
    if function is None:
        return f"{implementation.name}, which is {implementation.form.value}"
    code = getattr(inspect.unwrap(getattr(function, "__func__", function)), "__code__", None)
    return f"{implementation.name}, {code.co_filename}:{code.co_firstlineno}" if code else implementation.name


def _did(done: Effect) -> str:
    """One line on what a call did."""
    flushes = f"{done.flushes} TLB flushes" if done.flushes else "no TLB flush"
    made = ", ".join(f"{name} {number}" for name, number in done.hypercalls.items())
    changes = f"changed {done.changes}" if done.changes else "changed nothing"
    return f"{changes}; {flushes}; {f'hypercalls {made}' if made else 'no hypercall'}; {done.ns} ns"

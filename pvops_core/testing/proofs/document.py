"""The JSON of a proof."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pvops_core.backends.proof import Justified
from pvops_core.images.findings import Image
from pvops_core.records import Count, JsonRecord, like
from pvops_core.testing.proofs.proof import Example

if TYPE_CHECKING:
    from pvops_core.testing.proofs.proof import Proof
    from pvops_core.testing.proofs.subject import Subject


class ProvedOp(JsonRecord, frozen=True):
    """What was found of one op.

    Attributes:
        op: Hook name.
        path: The kernel's path of it.
        hook: Name of the hook; empty for none.
        own: Names of the kernel's own functions that the hook was compared with, and states of each.
        calls: How often the boot calls it.
        states: States tried.
        equal: Those in which both did the same.
        differing: Those in which they did not.
        passed: States that the hook left to the kernel's own function, by reason.
        lost: States that could not be compared, by reason.
        kinds: States that differ in each kind of thing.
        examples: The first states that differ.
        why_not: Why no state was tried; empty where some were.
        justified: What its backend says of an op that is not compared; null where it says nothing.
    """

    op: str
    path: str
    hook: str
    own: Mapping[str, Count]
    calls: Count
    states: Count
    equal: Count
    differing: Count
    passed: Mapping[str, Count]
    lost: Mapping[str, Count]
    kinds: Mapping[str, Count]
    examples: tuple[Example, ...]
    why_not: str
    justified: Justified | None


class ProveResult(JsonRecord, frozen=True):
    """A backend's hooks against a kernel's own functions.

    Attributes:
        image: The kernel.
        backend: Name of the backend.
        states: States of each op that were asked for.
        seed: Decides which.
        end: How the boot ended that states were taken from.
        whole: That was its own end: no lack of time, no crash.
        equal: There are no unexplained differences.
        tried: States tried, of all ops.
        unexplained: States that differ, or could not be compared, without a justification.
        ops: Each op that was asked for, in the table's order.
    """

    image: Image
    backend: str
    states: Count
    seed: Count
    end: str
    whole: bool
    equal: bool
    tried: Count
    unexplained: Count
    ops: tuple[ProvedOp, ...]


def prove_result(proof: Proof, subject: Subject, states: int) -> ProveResult:
    """What is told of a proof.

    Args:
        proof: the proof.
        subject: whose.
        states: how many of each op were asked for.
    """
    return ProveResult(
        image=like(subject.kernel.image, Image),
        backend=subject.backend,
        states=states,
        seed=subject.seed,
        end=proof.end,
        whole=proof.whole,
        equal=not proof.unexplained,
        tried=proof.states,
        unexplained=proof.unexplained,
        ops=tuple(like(each, ProvedOp) for each in proof.ops),
    )

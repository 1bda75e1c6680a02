"""What a proof has found, op by op."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from pvops_core.records import Count, JsonRecord
from pvops_core.testing.proofs.comparing import ProofDifference

if TYPE_CHECKING:
    from pvops_core.backends.proof import Justified

EXAMPLES = 5
"""Differing states of an op that are kept with all that differs in them."""


class Example(JsonRecord, frozen=True):
    """A state in which a hook does otherwise than the kernel's own function.

    Attributes:
        number: Which call of the op it is, from 0 on.
        arguments: The op's arguments by name.
        ns: Virtual time in nanoseconds.
        caller: Where it is called from.
        differences: All that differs.
        made_up: The call has an argument that the boot did not give it.
    """

    number: Count
    arguments: Mapping[str, Count]
    ns: Count
    caller: str
    differences: tuple[ProofDifference, ...]
    made_up: bool = False


@attrs.define
class OpProof:
    """What has been found of one op.

    Attributes:
        op: its hook name.
        path: the kernel's path of it.
        hook: name of the hook.
        own: names of the kernel's functions that it was compared with, with how many states of each.
        calls: how often the boot calls it.
        equal: states in which both did the same.
        passed: states that the hook left to the kernel's own function, by reason.
        lost: states that could not be compared, by reason.
        kinds: how many states differ in each kind of thing.
        examples: some of those.
        why_not: why it has not been compared at all; empty if it has.
        justified: its backend says that it need not be equal, and why.
    """

    op: str
    path: str
    hook: str = ""
    own: Counter[str] = attrs.field(factory=Counter)
    calls: int = 0
    equal: int = 0
    passed: Counter[str] = attrs.field(factory=Counter)
    lost: Counter[str] = attrs.field(factory=Counter)
    kinds: Counter[str] = attrs.field(factory=Counter)
    differing: int = 0
    examples: list[Example] = attrs.field(factory=list)
    why_not: str = ""
    justified: Justified | None = None

    @property
    def states(self) -> int:
        """How many have been tried."""
        return self.equal + self.differing + self.passed.total() + self.lost.total()

    @property
    def unexplained(self) -> int:
        """States that differ, or could not be compared, and nobody says why."""
        return 0 if self.justified else self.differing + self.lost.total()

    def add(self, example: Example | str) -> None:
        """A state has been compared, or left to the kernel's own function for a reason."""
        if isinstance(example, str):
            self.passed[example] += 1
            return
        if not example.differences:
            self.equal += 1
            return
        self.differing += 1
        self.kinds.update({each.kind for each in example.differences})
        if len(self.examples) < EXAMPLES:
            self.examples.append(example)


@attrs.frozen
class Proof:
    """What has been found of all.

    Attributes:
        ops: of each.
        end: how the boot that states were taken from ended.
        whole: that was its own end, and not for lack of time or by a crash.
    """

    ops: tuple[OpProof, ...]
    end: str
    whole: bool = True

    @property
    def unexplained(self) -> int:
        """States that differ, or could not be compared, and nobody says why."""
        return sum(each.unexplained for each in self.ops)

    @property
    def states(self) -> int:
        """How many have been tried, of all ops."""
        return sum(each.states for each in self.ops)

"""A thing that Xen has a rule for, how it is tried, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from pvops_xen.hypervisor import abi
from pvops_xen.testing.guests import EVENT, FAILSAFE, LEAVE, SYSCALL, SYSENTER, GuestOutcome

if TYPE_CHECKING:
    from pvops_xen.testing.guests import SmallGuest

_NAMES = {
    0: "#DE", 1: "#DB", 3: "#BP", 6: "#UD", 7: "#NM", 8: "#DF", 10: "#TS", 11: "#NP", 12: "#SS", 13: "#GP", 14: "#PF",
    17: "#AC", EVENT: "event callback", FAILSAFE: "failsafe callback", SYSCALL: "syscall callback",
    SYSENTER: "sysenter callback",
}  # fmt: skip
_CODED = frozenset({8, 10, 11, 12, 13, 14, 17})


@attrs.frozen
class Errno:
    """The hypercall fails with this error."""

    name: str

    def __str__(self) -> str:
        """As it is written."""
        return f"-{self.name}"

    def fits(self, got: object) -> bool:
        """A hypercall's result is this."""
        return got == -(19 if self.name == "ENODEV" else 6 if self.name == "ENXIO" else int(getattr(abi, self.name)))


@attrs.frozen
class Trap:
    """The guest is entered at its handler for an exception, or at a callback."""

    vector: int
    error: int = 0

    def __str__(self) -> str:
        """The exception, with its error code where it has one."""
        return _NAMES.get(self.vector, f"the handler of {self.vector:#x}") + (
            f"({self.error:#x})" if self.vector in _CODED else ""
        )

    def fits(self, got: object) -> bool:
        """An outcome is this trap."""
        return isinstance(got, GuestOutcome) and (got.kind, got.vector, got.error) == ("trap", self.vector, self.error)


@attrs.frozen
class Crash:
    """Xen ends the domain, with a message that holds this."""

    text: str

    def __str__(self) -> str:
        """The message."""
        return f"crash: {self.text}"

    def fits(self, got: object) -> bool:
        """An outcome is this crash."""
        return isinstance(got, GuestOutcome) and got.kind == "crash" and self.text in got.detail


@attrs.frozen
class Done:
    """The code runs to its end, or the hypercall gives 0."""

    def __str__(self) -> str:
        """As it is written."""
        return "done"

    def fits(self, got: object) -> bool:
        """A hypercall's result is 0, or an outcome is the kernel's end or the process's."""
        return got == 0 or (isinstance(got, GuestOutcome) and (got.kind == "done" or got.vector == LEAVE))


@attrs.frozen
class Gives:
    """It is taken; what the guest then has is this."""

    text: str
    value: object = True

    def __str__(self) -> str:
        """What happens."""
        return self.text

    def fits(self, got: object) -> bool:
        """A result is this value."""
        return got == self.value


Expected = Errno | Trap | Crash | Done | Gives
Act = Callable[["SmallGuest"], "int | GuestOutcome"]


@attrs.frozen
class RuleCase:
    """One rule.

    Attributes:
        name: what the guest tries.
        rule: where Xen has it.
        ends: how it ends.
        act: tries it; gives the hypercall's result, or how the code ended.
        widths: of guests that it is tried by.
    """

    name: str
    rule: str
    ends: Expected
    act: Act = attrs.field(repr=False)
    widths: tuple[int, ...] = (64, 32)


class Collection(list[RuleCase]):
    """Cases of one kind; calling it with a case's name, rule and end makes a decorator for its act."""

    def __call__(self, name: str, rule: str, ends: Expected, *widths: int) -> Callable[[Act], Act]:
        """Add a case."""

        def add(act: Act) -> Act:
            self.append(RuleCase(name, rule, ends, act, widths or (64, 32)))
            return act

        return add

"""What a backend plugin declares, and what its ops and its way to fill a real kernel's table look like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import attrs

from pvops_core.backends.proof import NOTES, ProofNotes
from pvops_core.guest.names import SymbolNames

if TYPE_CHECKING:
    from pvops_core.backends.finding.found import Found
    from pvops_core.backends.platform import Platform
    from pvops_core.guest.names import Names
    from pvops_core.kinds import MachineKind
    from pvops_core.machine import Machine
    from pvops_core.ops import Layout
    from pvops_core.patching.fills import KernelFill
    from pvops_core.patching.patchlets import Patchlet

API = 2
"""The number of this interface; it grows when something of it goes or changes its meaning."""
OLDEST_API = 1
"""The oldest interface that backends may still be written for."""


class Switch(Protocol):
    """Gives an op another implementation; from inside a hook it takes effect when the hook has returned."""

    def __call__(self, op: str, implementation: Callable[..., int | None], by: str) -> None:
        """Switch an op.

        Args:
            op: hook name of the op.
            implementation: a bound method of the ops object.
            by: who switches, for the history.

        Raises:
            SwitchError: it cannot be; everything is as it was before.
        """


@attrs.frozen
class Environment:
    """What an ops object is given to work with. Guest memory is not built yet when the object is made.

    Attributes:
        machine: the machine.
        layout: the guest's table of ops.
        platform: who answers its traps.
        symbols: guest-virtual addresses of the guest's symbols.
        switch: gives an op another implementation.
        guest: where the guest keeps what, by the kernel's own names; what its symbols say unless given.
    """

    machine: Machine
    layout: Layout
    platform: Platform
    symbols: Mapping[str, int]
    switch: Switch
    guest: Names = attrs.field(default=attrs.Factory(lambda self: SymbolNames(self.symbols), takes_self=True))


@attrs.frozen(kw_only=True)
class Backend:
    """A backend: what its entry point in group ``pvops.backends`` names.

    Attributes:
        name: its name, the same as the entry point's.
        api: the interface that it was written for: the number that ``API`` was then.
        description: one line for ``pvops backends``.
        base: name of the backend whose ops, platform, kernel and patchlets stand where this one has none;
            None for none.
        ops: class whose methods marked ``@hookimpl`` are the ops. An object of it may have an attribute ``absent``:
            names of ops that stay as the base has them on its machine, as a kernel with one CPU keeps its plain locks.
        platform: class of who loads a guest and answers its traps; None: the base's.
        kernel: how a real kernel fills its table; None: the base's.
        patchlets: code that may replace calls.
        nops: ops that do nothing here (the kernel's _paravirt_nop): their calls become nops.
        empty: ops whose slot is empty here: a call is a bug of the guest.
        kinds: kinds of machine that its platform can be.
        capabilities: what it can do beyond its base, for those who compare backends.
        forces: names of the CPU features that it forces on the built-in guest (``FEATURES`` of
            ``pvops_core.patching.altinstructions.alternatives``), besides those that ``kernel`` and the bases
            name. A kernel replaces calls of some ops by an instruction unless such a feature is there, so hooks of
            these ops are called with it alone. What a real kernel forces is up to its own boot code: ``kernel``
            alone says that.
        source: the plugin that it was loaded from; set by whoever loads it.
        together: groups of ops, by hook name, whose implementations share state that is not in the guest's memory: none
            of a group is switched without the others.
        proof: what `pvops prove` does not compare of its hooks, and why.
    """

    name: str
    api: int
    description: str = ""
    base: str | None = None
    ops: type | None = None
    platform: type[Platform] | None = None
    kernel: KernelFill | None = None
    patchlets: tuple[Patchlet, ...] = ()
    nops: frozenset[str] = frozenset()
    empty: frozenset[str] = frozenset()
    kinds: frozenset[MachineKind] = frozenset()
    capabilities: frozenset[str] = frozenset()
    forces: frozenset[str] = frozenset()
    source: Found | None = attrs.field(default=None, eq=False, repr=False)
    together: tuple[frozenset[str], ...] = ()
    proof: ProofNotes = NOTES

    def platform_for(self, boot_protocol: str) -> type[Platform] | None:
        """Its own platform for guests of a boot protocol, which may refuse them; None: its base decides."""
        del boot_protocol
        return self.platform

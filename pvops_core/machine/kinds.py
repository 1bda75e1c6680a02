"""The kinds of machine, where the machine's own modules look for them."""

from pvops_core.kinds import MachineKind

__all__ = ["MachineKind"]

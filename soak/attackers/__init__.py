"""The attackers: a module each, whose ``play(seed)`` makes one round of some seconds from a seed, and counts it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from soak.tally import Tally

ATTACKERS: Final = {
    "switches": "random switches of ops while a guest runs, with faults injected into the pokes",
    "kernel-switches": "the same of a booted kernel's ops",
    "images": "kernels with damaged fields, headers, tables and streams, and compressed bombs",
    "hypercalls": "random hypercalls on small Xen domains and lguest hosts",
    "kernel-hypercalls": "random hypercalls in kernels that Xen has booted so far as chance says",
    "guests": "random code in guests' kernels on all platforms",
    "livepatches": "random commands to live patching, against a model of its states",
    "plugins": "bad plugins of every kind in every place",
    "damage": "files that pvops reads back, damaged",
    "limits": "signals and limits of the process at random moments",
    "studies": "SIGKILL to workers, nannies, scheduler and client of a study on a cluster",
    "repeats": "the same run under other hash seeds, in other processes, saved and loaded between",
}
"""Name to what it does."""


def play(name: str, seed: int) -> Tally:
    """One round of an attacker."""
    module = import_module(f"soak.attackers.{name.replace('-', '_')}")
    tally: Tally = module.play(seed)
    return tally

"""What ALTERNATIVE entries make of patched sites, given who implements the ops now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np

from pvops_core.patching.altinstructions.alternatives import FEATURES, replace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pvops_core.patching.altinstructions.alternatives import AltEntry, Padding
    from pvops_core.switchboard.implementation import Implementation

LOCK_FEATURES = {"queued_spin_unlock": FEATURES["PVUNLOCK"], "vcpu_is_preempted": FEATURES["VCPUPREEMPT"]}
"""Features that ``paravirt_set_cap`` (arch/x86/kernel/paravirt-spinlocks.c) forces when an op is not the native one."""


def lock_features(current: Mapping[str, Implementation], native: str) -> frozenset[int]:
    """The features that ``paravirt_set_cap`` would force on.

    Args:
        current: implementations by op.
        native: name of the backend that all others are based on: what the kernel was linked with.
    """
    return frozenset(
        feature for op, feature in LOCK_FEATURES.items() if op in current and current[op].backend != native
    )


@attrs.frozen(eq=False)
class SiteAlternatives:
    """The entries that lie within call sites, in section order, by the address they replace.

    Attributes:
        entries: entries with their replacement's bytes as assembled.
        padding: the kernel's nops and how it joins them.
    """

    entries: Mapping[int, Sequence[tuple[AltEntry, bytes]]]
    padding: Padding

    @classmethod
    def of(cls, entries: Iterable[AltEntry], read: Callable[[int, int], bytes], padding: Padding) -> SiteAlternatives:
        """Collect entries, reading their replacements from the image."""
        found: dict[int, list[tuple[AltEntry, bytes]]] = {}
        for entry in entries:
            code = read(entry.replacement, entry.replacement_length) if entry.replacement_length else b""
            found.setdefault(entry.address, []).append((entry, code))
        return cls(found, padding)

    def apply_all(
        self, addresses: NDArray[np.uint64], codes: NDArray[np.uint8], features: frozenset[int]
    ) -> NDArray[np.uint8]:
        """As :meth:`apply` for the rows of many sites."""
        places = {row: at for row, at in enumerate(addresses.tolist()) if at in self.entries} if self.entries else {}
        if not places:
            return codes
        found = codes.copy()
        for row, address in places.items():
            found[row] = np.frombuffer(self.apply(address, codes[row].tobytes(), features), np.uint8)
        return found

    def apply(self, address: int, code: bytes, features: frozenset[int]) -> bytes:
        """A site's bytes after alternatives, of its bytes after the paravirt step."""
        # In the order of the section, since a later entry overwrites an earlier one's bytes.
        for entry, replacement in self.entries.get(address, ()):
            if entry.length <= len(code) and entry.applies(features):
                code = replace(entry, replacement, self.padding) + code[entry.length :]
        return code

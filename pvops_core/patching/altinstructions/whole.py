"""All alternatives of a kernel, not just those at its call sites: what each place becomes on a CPU.

The order is the kernel's: retpolines and returns, then alternatives, and before or after them call thunks on a CPU with
call_depth. FineIBT (a kernel with ``.cfi_sites``) is not followed, nor are the trampolines that a kernel allocates for
a CPU with the bug ITS and without retpolines; :attr:`AlternativesPlan.left_out` says where they would have their part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.patching.altinstructions.alternatives import grouped, read_alternatives
from pvops_core.patching.altinstructions.callthunks import SECTION as CALL_SITES
from pvops_core.patching.altinstructions.callthunks import apply_call_thunks, before_alternatives, takes_call_thunks
from pvops_core.patching.altinstructions.capabilities import CALL_DEPTH, RETPOLINE, RETPOLINE_LFENCE
from pvops_core.patching.altinstructions.returns import apply_retpolines, apply_returns, needs_trampolines
from pvops_core.patching.code.disasm import encodings
from pvops_core.patching.patchdefault import patch_default
from pvops_core.patching.plan import PlannedGroup, apply_groups, calls_of_ops
from pvops_core.patching.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.patching.kernel import KernelPlan

FINE_IBT: Final = ".cfi_sites"

_CALL, _JUMPS = 0xE8, (0xE9, 0xEB)


@attrs.frozen(eq=False)
class AlternativesPlan:
    """What becomes of every place with alternatives.

    Attributes:
        features: numbers of the CPU features that are there, those that the platform forces among them.
        groups: the places, in the order of their section.
        ends: the bytes of each by its address when the kernel has taken its last step.
        returns: returns that were changed before.
        retpolines: indirect branches that were changed before.
        call_thunks: calls that were led through thunks, before or after as the kernel does it.
        left_out: steps of the kernel that are not followed here though this kernel takes them on this CPU.
    """

    features: frozenset[int]
    groups: tuple[PlannedGroup, ...]
    ends: Mapping[int, bytes]
    returns: int
    retpolines: int
    call_thunks: int
    left_out: tuple[str, ...]


def plan_alternatives(plan: KernelPlan, features: frozenset[int]) -> AlternativesPlan:
    """Follow all alternatives of a kernel.

    Args:
        plan: what becomes of its call sites.
        features: numbers of the features of its CPU, besides those that the platform forces.

    Raises:
        ImageError: a record, or a replacement, is damaged.
    """
    kernel, image = plan.kernel, plan.kernel.image
    there, text = features | plan.features, Text(image)
    # The paravirt step comes before: what it wrote is what alternatives find.
    for planned in plan.sites:
        if planned.paravirt is not None:
            text.write(planned.site.address, planned.paravirt)
    # Before alternatives, whose places they may lie in.
    retpolines = apply_retpolines(image, text, there, kernel.padding)
    returns = apply_returns(image, text, there)
    calls = calls_of_ops(image, plan.context, patch_default, kernel.sites)
    places = grouped(read_alternatives(image))
    # As the kernel's own code calls the two (6.12 after, 7.2 before): the version does not say.
    thunks, early = takes_call_thunks(image, there), before_alternatives(image)
    addresses = [site.address for site in kernel.sites] + [place.address for place in places]
    # What is called from a place that alternatives replace is led through the thunk there, not in the replacement.
    thunked = apply_call_thunks(image, text, addresses) if thunks and early else 0
    groups = apply_groups(image, text, places, there, kernel.padding, calls)
    thunked += apply_call_thunks(image, text, addresses) if thunks and not early else 0
    ends = {each.group.address: text.read(each.group.address, each.group.length) for each in groups}
    left_out = []
    # Told rather than guessed: what a kernel does there depends on more than its image.
    if image.section(FINE_IBT) is not None:
        left_out.append("FineIBT")
    if CALL_DEPTH in there and not thunks and image.section(CALL_SITES) is not None:
        left_out.append("call thunks")
    if needs_trampolines(image, there):
        left_out.append("ITS trampolines")
    return AlternativesPlan(there, groups, ends, returns, retpolines, thunked, tuple(left_out))


def kind_of(planned: PlannedGroup, bits: int) -> str:
    """What sort of place it is: ``op``, ``retpoline``, ``call``, ``jump``, ``nop`` or ``code``, by what it became.

    Args:
        planned: the place.
        bits: 32 or 64, the mode that its code runs in.
    """
    group, final = planned.group, planned.final
    if group.direct is not None:
        return "op"
    if any(entry.feature in {RETPOLINE, RETPOLINE_LFENCE} for entry in group.entries):
        return "retpoline"
    if final[0] == _CALL:
        return "call"
    # A run of nops that is longer than the longest begins with a jump over int3, which no branch does.
    padding = final[0] == _JUMPS[1] and final[1] == len(final) - 2 and not final[2:].strip(b"\xcc")
    if padding or any(first.nop for first in encodings(final, bits)[:1]):
        return "nop"
    return "jump" if final[0] in _JUMPS else "code"

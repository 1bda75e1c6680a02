"""What the switchboard knows of a guest's text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pvops_core.machine.run.watchdog import SymbolAt
    from pvops_core.ops import Layout
    from pvops_core.switchboard.builtin.alternatives import SiteAlternatives
    from pvops_core.switchboard.builtin.siteindex import SiteIndex


@attrs.frozen(eq=False)
class SwitchableText:
    """What the switchboard knows of the guest's text.

    Attributes:
        layout: the layout of its op table.
        symbols: guest-virtual addresses of its symbols, those of the tables among them.
        sites: its call sites.
        alternatives: ALTERNATIVE entries within its sites.
        nops: the nops its kernel would use on this CPU: as many bytes as asked for.
        built: bytes of its image as built, given address and length.
        symbol_at: names addresses.
    """

    layout: Layout
    symbols: Mapping[str, int]
    sites: SiteIndex
    alternatives: SiteAlternatives
    nops: Callable[[int], bytes]
    built: Callable[[int, int], bytes]
    symbol_at: SymbolAt = lambda _address: None

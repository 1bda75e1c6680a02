"""What tests of single ops share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_xen import XenOps

from pvops_core.backends import Environment
from pvops_core.ops import LAYOUTS

if TYPE_CHECKING:
    from conftest import Bench

TABLE, TARGET, MM, ROOT, USER_ROOT = 0x300, 0x310, 0x320, 0x330, 0x331


def ops_of(bench: Bench, switches: list[str] | None = None) -> XenOps:
    symbols = {"kernel_base": bench.base, "mm_pgd_offset": 0, "mm_user_pgd_offset": bench.word, "init_mm": bench.va(MM)}
    symbols |= {"pgt_buf_start": bench.va(0x111), "pgt_buf_top": bench.va(0x111) + 8}
    seen = switches if switches is not None else []
    environment = Environment(
        machine=bench.machine,
        layout=LAYOUTS["6.1-64" if bench.word == 8 else "2.6.24-pae"],
        platform=bench.platform,
        symbols=symbols,
        switch=lambda op, implementation, by: seen.append(f"{op}:{implementation.__name__}:{by}"),
    )
    return XenOps(environment)

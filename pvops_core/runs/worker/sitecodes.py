"""What a real kernel has made of its call sites, read from its text in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from pvops_core.errors import ImageError
from pvops_core.patching.code.nops import kernel_nops
from pvops_core.patching.sites import read_sites
from pvops_core.patching.tables import find_table
from pvops_core.patching.text import BuiltText
from pvops_core.switchboard.builtin.siteindex import site_form

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.ops import Slot
    from pvops_core.patching.sites import SiteRecord
    from pvops_core.session import Session

Codes = Mapping[str, Mapping[str, str]]
"""Op name -> address of a site -> its bytes, both in hex."""

AT_THE_END: Final = "when the run ended"


class SiteCodes:
    """The call sites of a session's kernel.

    Some of them lie in text that the kernel frees when it has booted, so the time at which they are read matters.

    Attributes:
        codes: the bytes of every site when last read.
        note: when that was, or why they could not be read, for a person.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.codes: Codes = {}
        self.note = ""
        self._records: Sequence[SiteRecord] = ()
        self._slots: Sequence[Slot] = ()
        if session.table is not None:
            self._records, self._slots = session.table.sites, session.table.layout.slots
        else:
            self.note = _why_not(session.kernel.image)
        if not self._records:
            self.note = self.note or "the kernel annotates no call of an op"

    def read(self, moment: str = AT_THE_END) -> None:
        """Read every site as it is now, or would be without hooks."""
        if not self._records:
            return
        codes: dict[str, dict[str, str]] = {}
        instead = self._session.text_without_hooks()
        for record in self._records:
            name = self._slots[record.type].op.name
            code = instead.get(record.address) or self._session.text.read(record.address, record.length)
            codes.setdefault(name, {})[f"{record.address:#x}"] = code.hex()
        self.codes, self.note = codes, f"read {moment}"

    def forms(self) -> dict[str, dict[str, int]]:
        """Op name -> form -> number of its sites that have it."""
        image = self._session.kernel.image
        nops, text = kernel_nops(image), BuiltText(image)
        found: dict[str, dict[str, int]] = {}
        for op, codes in self.codes.items():
            counts: Counter[str] = Counter()
            for address, code in codes.items():
                now = bytes.fromhex(code)
                counts[site_form(text.read(int(address, 16), len(now)), now, nops)] += 1
            found[op] = dict(counts)
        return found


def _why_not(image: KernelImage) -> str:
    """Why a kernel's sites cannot be read; empty if it has none."""
    try:
        if sites := read_sites(image):
            find_table(image, sites)
    except ImageError as error:
        return f"not read: {error}"
    return ""

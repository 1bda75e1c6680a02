"""What a real kernel has made of its call sites, read from its text in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from pvops_core.errors import ImageError
from pvops_core.patching.nops import kernel_nops
from pvops_core.patching.sites import read_sites
from pvops_core.patching.tables import find_table
from pvops_core.patching.text import Text
from pvops_core.switchboard.sitebook import site_form

if TYPE_CHECKING:
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
        try:
            self._records = read_sites(session.kernel.image)
            self._slots = find_table(session.kernel.image, self._records).layout.slots if self._records else ()
        except ImageError as error:
            self._records, self._slots = (), ()
            self.note = f"not read: {error}"
        if not self._records:
            self.note = self.note or "the kernel annotates no call of an op"

    def read(self, moment: str) -> None:
        """Read every site as it is now."""
        if not self._records:
            return
        codes: dict[str, dict[str, str]] = {}
        for record in self._records:
            name = self._slots[record.type].op.name
            code = self._session.text.read(record.address, record.length)
            codes.setdefault(name, {})[f"{record.address:#x}"] = code.hex()
        self.codes, self.note = codes, f"read {moment}"

    def forms(self) -> dict[str, dict[str, int]]:
        """Op name -> form -> number of its sites that have it."""
        image = self._session.kernel.image
        nops, text = kernel_nops(image), Text(image)
        found: dict[str, dict[str, int]] = {}
        for op, codes in self.codes.items():
            counts: Counter[str] = Counter()
            for address, code in codes.items():
                now = bytes.fromhex(code)
                counts[site_form(text.read(int(address, 16), len(now)), now, nops)] += 1
            found[op] = dict(counts)
        return found

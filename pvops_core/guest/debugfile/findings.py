"""What is told of a file of symbols that was made."""

from __future__ import annotations

from pvops_core.images.findings import Image
from pvops_core.records import Count, JsonRecord, Sha256


class SymbolsResult(JsonRecord, frozen=True):
    """A file of a kernel's symbols that was made.

    Attributes:
        image: The kernel.
        file: The file.
        sha256: Hash of its bytes.
        bytes: How many it has.
        offset: How much further on than it was linked the kernel is in it, in hexadecimal.
        source: What the symbols were read from: `.symtab` or `kallsyms`.
        symbols: How many there are.
        functions: How many of them are functions.
        frames: Ranges of text whose callers a debugger can find; 0 of a kernel without ORC.
    """

    image: Image
    file: str
    sha256: Sha256
    bytes: Count
    offset: str
    source: str
    symbols: Count
    functions: Count
    frames: Count

"""A guest's command line as what it is to a kernel: bytes that end at a NUL."""

from __future__ import annotations

from pvops_core.errors import UsageError


def command_line(text: str, most: int) -> bytes:
    """The bytes of a command line, without the NUL.

    A kernel knows no encoding: ``char *cmdline``. Bytes that are not UTF-8 come as the surrogates that Python makes of
    them in the process's arguments (PEP 383) and reach the guest as they were given.

    Args:
        text: the line.
        most: bytes that there is room for, the NUL not counted.

    Raises:
        UsageError: it is longer, a NUL would cut it off, or a lone surrogate stands for no byte.
    """
    # Arguments of a program that are no UTF-8 come as surrogates, and stand for the bytes that they were.
    try:
        line = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        letter = text[error.start]
        raise UsageError(f"the command line's letter {error.start}, {letter!a}, stands for no byte") from error
    # Not cut there: the user would see a shorter line take effect without a word.
    if b"\0" in line:
        raise UsageError(f"a NUL at byte {line.index(0)} would end the command line there")
    # Not cut either, though a kernel would do so (COMMAND_LINE_SIZE).
    if len(line) > most:
        raise UsageError(f"a command line of {len(line)} bytes: this guest's platform has room for {most}")
    return line

"""Assembles small pieces of code: Intel syntax, in a process of its own, since a mistake in the text ends that."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
from typing import IO, Final

from pvops_core.errors import MachineError

_CHILD: Final = """
import sys, json
sys.path[:] = json.loads(sys.argv[1])
from pvops_core.testing import assembler
assembler.serve()
"""


@functools.lru_cache(maxsize=512)
def assemble(text: str, bits: int = 64, base: int = 0) -> bytes:
    """The bytes of a piece of code that will lie at ``base``.

    Args:
        text: Intel syntax with GNU directives; ``offset label`` is a label's address.
        bits: 64 or 32.
        base: address of the first byte.

    Raises:
        MachineError: a line is no code, or refers to something outside the text.
    """
    if bits not in {32, 64}:
        raise MachineError(f"there is no code of {bits} bits")
    return _assembler(os.getpid()).assemble(text, bits, base)


@functools.cache
def _assembler(_process: int) -> _Assembler:
    """One for each process: a fork must not read its parent's answers."""
    return _Assembler()


class _Assembler:
    """The child that assembles: started when it is first asked, and again after a mistake has ended it."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        self._errors: IO[str] | None = None
        atexit.register(self._end)

    def assemble(self, text: str, bits: int, base: int) -> bytes:
        """What :func:`assemble` gives."""
        child = self._child = self._child or self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(json.dumps([text, bits, base]) + "\n")
            child.stdin.flush()
        line = child.stdout.readline()
        if not line:
            raise MachineError(f"it cannot be assembled: {self._end() or 'the assembler has ended'}")
        answer = json.loads(line)
        if isinstance(answer, dict):
            raise MachineError(answer["error"])
        return bytes.fromhex(answer)

    def _start(self) -> subprocess.Popen[str]:
        # A file and no pipe: LLVM's warnings are not read, and must not fill one.
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - _end closes it
        return subprocess.Popen(  # noqa: S603 - this interpreter, and our own text
            [sys.executable, "-c", _CHILD, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
        )

    def _end(self) -> str:
        """Let the child come to its end; gives what it said."""
        child, errors = self._child, self._errors
        self._child = self._errors = None
        if child is None or errors is None:
            return ""
        with contextlib.suppress(BrokenPipeError):
            child.communicate()
        with errors:
            errors.seek(0)
            return errors.read().strip()

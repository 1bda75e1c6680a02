"""What a count is of: rooms by name, and a key of what their files mean.

A room is a folder or module of ``pvops_core`` (``machine``, ``images``, ``kinds``), or of a backend by its name:
``xen``, ``xen/hypervisor``. Comments, docstrings and white space of Python are no part of what a file means.
"""

from __future__ import annotations

import ast
import hashlib
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
_DOCUMENTED: Final = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_NAME: Final = re.compile(r"\w+(/\w+)*")
_SILENT: Final = frozenset({".md", ".pyc"})


class NoRoomError(ValueError):
    """There is no room of a name."""


def key(rooms: Iterable[str]) -> str:
    """A hash of what all files of some rooms mean, the same in any order.

    Raises:
        NoRoomError: there is none of one of the names.
    """
    digest = hashlib.sha256()
    for file in sorted({file for room in rooms for file in files(room)}):
        # With its name, or files that changed places would be no change.
        digest.update(f"{file.relative_to(ROOT).as_posix()}\0".encode())
        digest.update(_meaning(file, file.stat().st_mtime_ns))
    return digest.hexdigest()[:16]


def files(room: str) -> list[Path]:
    """The files of a room.

    Raises:
        NoRoomError: there is none of that name.
    """
    folder = _place(room)
    there = [folder.with_suffix(".py")] if not folder.is_dir() else sorted(folder.rglob("*"))
    return [file for file in there if file.is_file() and file.suffix not in _SILENT]


def _place(room: str) -> Path:
    first, _, rest = room.partition("/")
    for place in (ROOT / "pvops_core" / room, ROOT / "plugins" / first / f"pvops_{first}" / rest):
        if _NAME.fullmatch(room) and (place.is_dir() or place.with_suffix(".py").is_file()):
            return place
    raise NoRoomError(f"no room {room!r}: a folder or module of pvops_core, or a backend's name")


@cache
def _meaning(file: Path, _changed: int) -> bytes:
    # The time of the last change is asked for to be part of the cache's key.
    raw = file.read_bytes()
    return hashlib.sha256(said(raw.decode()).encode() if file.suffix == ".py" else raw).digest()


def said(source: str) -> str:
    """Python source without comments, docstrings and white space."""
    lines = [line.encode() for line in source.splitlines(keepends=True)]
    for (first, start), (last, end) in [*_docstrings(source), *_comments(source)]:
        for number in range(first, last + 1):
            line = lines[number - 1]
            begin, stop = start if number == first else 0, end if number == last else len(line)
            lines[number - 1] = line[:begin] + b" " * (stop - begin) + line[stop:]
    return "".join(b"".join(lines).decode().split())


def _docstrings(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where they are, in lines and bytes; those beneath assignments as well."""
    for node in ast.walk(ast.parse(source)):
        for each in node.body if isinstance(node, _DOCUMENTED) else ():
            if (
                isinstance(each, ast.Expr)
                and isinstance(each.value, ast.Constant)
                and isinstance(each.value.value, str)
            ):
                assert each.end_lineno is not None
                assert each.end_col_offset is not None
                yield (each.lineno, each.col_offset), (each.end_lineno, each.end_col_offset)


def _comments(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            start = len(token.line[:column].encode())
            yield (row, start), (row, start + len(token.string.encode()))

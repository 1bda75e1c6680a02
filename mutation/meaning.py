"""Which mutants cannot mean anything: in annotations and imports for types, which never run, and in checks on us.

The latter are the ``strict`` of ``zip``: that two lists of ours are of one length is true of all that a test can run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path


def meaningless(file: Path, start: tuple[int, int], end: tuple[int, int]) -> bool:
    """Whether what a piece of a file says makes no difference.

    Args:
        file: the source.
        start: line, from 1, and column, from 0, where the piece begins.
        end: where it ends.
    """
    return any(first <= start and end <= last for first, last in _dead(file))


@cache
def _dead(file: Path) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [
        ((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset))
        for node in _types(tree)
        if node.end_lineno is not None and node.end_col_offset is not None
    ]


def _types(tree: ast.Module) -> Iterator[ast.expr | ast.stmt]:
    for node in ast.walk(tree):
        match node:
            case ast.arg(annotation=ast.expr() as annotation) | ast.AnnAssign(annotation=annotation):
                yield annotation
            case ast.FunctionDef(returns=ast.expr() as annotation):
                yield annotation
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield node
            case ast.keyword(arg="strict", value=value):
                yield value

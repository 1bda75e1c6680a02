"""Turns the catalogue's C declarations into ops."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from pvops_core.ops.ctypes import CType
from pvops_core.ops.model import Arg, Clobber, Convention, Op

_DECLARATION = re.compile(r"^(?P<result>.*?)(?P<name>\w+)(?:\((?P<args>.*)\))?$", re.DOTALL)
_ARGUMENT = re.compile(r"^(?P<type>.*?)(?P<name>\w+)$")


def _ctype(text: str) -> CType | None:
    name = " ".join(text.replace("*", " * ").split()).replace("* *", "**")
    return None if name == "void" else CType(name)


def _arg(text: str) -> Arg:
    match = _ARGUMENT.match(text.strip())
    ctype = _ctype(match["type"]) if match else None
    if match is None or ctype is None:
        raise ValueError(f"{text!r} does not declare an argument")
    return Arg(match["name"], ctype)


def declare(
    group: str,
    source: str,
    declaration: str,
    convention: Convention,
    clobbers: Clobber = Clobber.ANY,
) -> Op:
    """Make an op of a C declaration such as ``void write_cr3(unsigned long cr3)``.

    A declaration without parentheses is a data slot. ValueError if the text does not parse: catalogue text is
    ours.
    """
    match = _DECLARATION.match(" ".join(declaration.split()))
    if match is None:
        raise ValueError(f"{declaration!r} is not a C declaration")
    args = match["args"]
    return Op(
        name=match["name"],
        group=group,
        result=_ctype(match["result"]),
        args=() if args in {None, "void"} else tuple(_arg(arg) for arg in args.split(",")),
        convention=Convention.NONE if args is None else convention,
        clobbers=Clobber.NONE if args is None else clobbers,
        source=source,
    )


def in_order(
    source: str, groups: Mapping[str, Iterable[str]], convention: Convention, callee_save: frozenset[str]
) -> Mapping[str, Op]:
    """A table's ops by name, in its order.

    Args:
        source: the header.
        groups: declarations by group, in the order of the structs.
        convention: how the C functions of the machine are called.
        callee_save: ops that the header declares as ``struct paravirt_callee_save``.
    """

    def declared() -> Iterator[Op]:
        for group, declarations in groups.items():
            for text in declarations:
                op = declare(group, source, text, convention)
                yield declare(group, source, text, *_CALLEE_SAVE) if op.name in callee_save else op

    return {op.name: op for op in declared()}


_CALLEE_SAVE = (Convention.CALLEE_SAVE, Clobber.EAX)


def changed(
    ops: Mapping[str, Op], source: str, convention: Convention, changes: Mapping[str, Iterable[str]]
) -> Mapping[str, Op]:
    """A later generation's ops: those of the one before, but for some members what a later header has in their place.

    Args:
        ops: those of the generation before, in order.
        source: the later header.
        convention: how the C functions of the machine are called.
        changes: an op of before -> the declarations that stand there now; none for one that is gone.
    """

    def standing() -> Iterator[Op]:
        for name, op in ops.items():
            if name in changes:
                yield from (declare(op.group, source, text, convention) for text in changes[name])
            else:
                yield op

    return {op.name: op for op in standing()}

"""Turns the catalogue's C declarations into ops."""

from __future__ import annotations

import re

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

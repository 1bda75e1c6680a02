"""Values of a guest as C would write them: designated initialisers, pointers cast, functions by name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from pvops_core.errors import StructureError
from pvops_core.guest.ctypes import COMPOUND, DEPTH_LIMIT, Kind

if TYPE_CHECKING:
    from pvops_core.guest.structs import Structures

ELEMENT_LIMIT: Final = 16
"""Elements of an array that are shown."""


def spelled(of: Structures, value: Any) -> str:  # noqa: ANN401 - any value
    """A value as C would write it, a structure's members a line each."""
    return _written(of, value._type, value, 0)  # noqa: SLF001 - one idea in two modules


def _written(of: Structures, type: int, value: Any, depth: int) -> str:  # noqa: ANN401 - any value
    from pvops_core.guest.structs import Array, Pointer, Struct  # noqa: PLC0415 - they print themselves by this

    if isinstance(value, Pointer):
        name = of.name(value.address_) if value else ""
        return f"({value.type_}){value.address_:#x}" + (f" /* {name} */" if name else "")
    if isinstance(value, Struct):
        return _structure(of, value, depth)
    if isinstance(value, Array):
        return _array(of, value, depth)
    if isinstance(value, str):
        return json.dumps(value)
    number = of.types.resolved(type)
    if of.types.kind(number) in {Kind.ENUM, Kind.ENUM64}:
        return of.types.enumerators(number).get(value, str(value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _structure(of: Structures, value: Any, depth: int) -> str:  # noqa: ANN401 - a structure
    if depth > DEPTH_LIMIT:
        return "{ ... }"
    indent = "\t" * (depth + 1)
    lines = []
    for name, member in of.types.members(value._type).items():  # noqa: SLF001 - one idea in two modules
        try:
            lines.append(f"{indent}.{name} = {_written(of, member.type, value[name], depth + 1)},")
        except StructureError as error:
            lines.append(f"{indent}/* {name}: {error.message} */")
    head = f"({value.type_})" if not depth else ""
    return "\n".join([f"{head}{{", *lines, "\t" * depth + "}"])


def _array(of: Structures, value: Any, depth: int) -> str:  # noqa: ANN401 - an array
    element = value._type  # noqa: SLF001 - one idea in two modules
    shown = [_written(of, element, value[index], depth + 1) for index in range(min(len(value), ELEMENT_LIMIT))]
    if len(value) > ELEMENT_LIMIT:
        shown.append("...")
    if of.types.kind(of.types.resolved(element)) in COMPOUND:
        indent = "\t" * (depth + 1)
        return "\n".join(["{", *(f"{indent}{each}," for each in shown), "\t" * depth + "}"])
    return f"{{ {', '.join(shown)} }}" if shown else "{}"

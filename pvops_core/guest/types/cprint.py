"""Values of a guest as C would write them: designated initialisers, pointers cast, functions by name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import attrs

from pvops_core.errors import StructureError
from pvops_core.guest.types.ctypes import COMPOUND, DEPTH_LIMIT, TypeKind

if TYPE_CHECKING:
    from pvops_core.guest.types.structs import Structures

ELEMENT_LIMIT: Final = 16
"""Elements of an array that are shown."""
VALUE_LIMIT: Final = 20_000
"""Values that are shown in one: types may nest without end but for that."""


@attrs.define
class Writer:
    """Writes one value.

    Attributes:
        of: the memory that it is in.
        left: values that may still be shown.
    """

    of: Structures
    left: int = VALUE_LIMIT

    def written(self, type: int, value: Any, depth: int = 0) -> str:  # noqa: ANN401 - any value
        """A value of a type, by the type's number; a structure's members have a line each."""
        self.left -= 1
        types, number = self.of.types, self.of.types.resolved(type)
        kind = types.kind(number)
        if isinstance(value, str):
            # Before the limits: a string is one value however long.
            return json.dumps(value)
        if kind is TypeKind.PTR or kind is TypeKind.ARRAY or kind in COMPOUND:
            if self.left < 0 or depth > DEPTH_LIMIT:
                return "..."
            if kind is TypeKind.PTR:
                return self.pointer(value)
            return self.array(value, depth) if kind is TypeKind.ARRAY else self.structure(value, depth)
        if kind in {TypeKind.ENUM, TypeKind.ENUM64}:
            return types.enumerators(number).get(value, str(value))
        return str(value).lower() if isinstance(value, bool) else str(value)

    def pointer(self, value: Any) -> str:  # noqa: ANN401 - a pointer
        """A pointer, cast; the name of what it points to in a comment."""
        name = self.of.name(value.address_) if value else ""
        return f"({value.type_}){value.address_:#x}" + (f" /* {name} */" if name else "")

    def structure(self, value: Any, depth: int = 0) -> str:  # noqa: ANN401 - a structure
        """A structure; what cannot be read is said in its place."""
        indent, lines = "\t" * (depth + 1), []
        for name, member in self.of.types.members(value.number_).items():
            if self.left < 0:
                lines.append(f"{indent}...")
                break
            try:
                lines.append(f"{indent}.{name} = {self.written(member.type, value[name], depth + 1)},")
            except StructureError as error:
                lines.append(f"{indent}/* {name}: {error.message} */")
        head = "" if depth else f"({value.type_})"
        return "\n".join([f"{head}{{", *lines, "\t" * depth + "}"])

    def array(self, value: Any, depth: int = 0) -> str:  # noqa: ANN401 - an array
        """An array, as far as it is shown; structures have lines of their own."""
        count = min(len(value), ELEMENT_LIMIT)
        shown = [self.written(value.number_, value[index], depth + 1) for index in range(count)]
        if len(value) > ELEMENT_LIMIT:
            shown.append("...")
        if self.of.types.kind(self.of.types.resolved(value.number_)) in COMPOUND:
            indent = "\t" * (depth + 1)
            return "\n".join(["{", *(f"{indent}{each}," for each in shown), "\t" * depth + "}"])
        return f"{{ {', '.join(shown)} }}" if shown else "{}"

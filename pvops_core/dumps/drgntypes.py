"""Types and variables for drgn, out of a kernel's own type information (BTF), where there is no debug information.

BTF has every type, and of variables the types of per-CPU ones alone; of a few others, which drgn's helpers begin at,
the type stands here. drgn is imported by whoever calls this.
"""

from __future__ import annotations

from functools import cache, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from drgn import (
    FindObjectFlags,
    Object,
    Program,
    Symbol,
    SymbolBinding,
    SymbolIndex,
    SymbolKind,
    TypeEnumerator,
    TypeKind,
    TypeMember,
    TypeParameter,
)

from pvops_core.errors import StructureError, UsageError
from pvops_core.guest.types.ctypes import ALIASES, CTypes
from pvops_core.guest.types.ctypes import TypeKind as Kind
from pvops_core.images import KernelImage, load_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from drgn import Type, TypeKindSet

NAME: Final = "pvops-btf"
VARIABLES: Final = {
    "init_task": "struct task_struct",
    "init_mm": "struct mm_struct",
    "init_pid_ns": "struct pid_namespace",
    "init_uts_ns": "struct uts_namespace",
    "prb": "struct printk_ringbuffer *",
    "clear_seq": "struct latched_seq",
    "modules": "struct list_head",
    "saved_command_line": "char *",
    "linux_banner": "char",
    "jiffies_64": "u64",
    "nr_cpu_ids": "unsigned int",
    "__per_cpu_offset": "unsigned long []",
    "__cpu_possible_mask": "struct cpumask",
    "__cpu_online_mask": "struct cpumask",
    "__cpu_present_mask": "struct cpumask",
    "page_offset_base": "unsigned long",
    "vmemmap_base": "unsigned long",
    "vmalloc_base": "unsigned long",
}
"""Types of variables (init/init_task.c, mm/init-mm.c, kernel/pid.c, kernel/printk/printk.c and others)."""
_TAGS: Final = {
    TypeKind.STRUCT: ("struct ", {Kind.STRUCT}),
    TypeKind.UNION: ("union ", {Kind.UNION}),
    TypeKind.ENUM: ("enum ", {Kind.ENUM, Kind.ENUM64}),
    TypeKind.TYPEDEF: ("", {Kind.TYPEDEF}),
    TypeKind.INT: ("", {Kind.INT}),
    TypeKind.BOOL: ("", {Kind.INT}),
}


def open_dump(path: Path | str, kernel: KernelImage | Path | str) -> Program:
    """A drgn program of a dump, with the kernel's symbols and types.

    Args:
        path: the dump.
        kernel: the kernel that it is of.

    Raises:
        ImageError: the kernel cannot be read.
        UsageError: it has no type information, or the file is no dump.
    """
    image = kernel if isinstance(kernel, KernelImage) else load_image(kernel)
    prog = Program()
    try:
        prog.set_core_dump(path)
    except (ValueError, OSError) as failure:
        raise UsageError(f"{path}: drgn does not open it: {failure}") from failure
    add_types(prog, image)
    return prog


def add_types(prog: Program, image: KernelImage) -> None:
    """Let a drgn program find the symbols, types, constants and well-known variables of a kernel.

    Args:
        prog: the program, with a dump of that kernel.
        image: the kernel.

    Raises:
        UsageError: it has no type information.
    """
    if image.types is None:
        raise UsageError(f"{image.path} has no type information (BTF): drgn needs its debug information")
    made = _Types(prog, image)
    prog.register_symbol_finder(NAME, SymbolIndex(_symbols(image)), enable_index=-1)
    prog.register_type_finder(NAME, made.find_type, enable_index=-1)
    prog.register_object_finder(NAME, made.find_object, enable_index=-1)


def _symbols(image: KernelImage) -> Iterator[Symbol]:
    """Those of the image; one reaches to the next, for kallsyms has no sizes."""
    ordered = sorted(image.symbols.items(), key=lambda each: each[1])
    places = sorted({address for _name, address in ordered})
    ends = dict(pairwise([*places, places[-1] + 1])) if places else {}
    for name, address in ordered:
        yield Symbol(name, address, ends[address] - address, SymbolBinding.GLOBAL, SymbolKind.UNKNOWN)


class _Types:
    """A kernel's types as a drgn program's, made when they are asked for."""

    def __init__(self, prog: Program, image: KernelImage) -> None:
        assert image.types is not None
        self._prog, self._image, self._btf = prog, image, image.types
        self._types = CTypes(image.types, image.pointer_size)
        self._made: dict[int, Type] = {}
        self._constants = cache(self._all_constants)

    def find_type(self, _prog: Program, kinds: TypeKindSet, name: str, _file: str | None) -> Type | None:
        for kind in kinds:
            tag, wanted = _TAGS.get(kind, ("", set()))
            try:
                number = self._types.find(tag + name)
            except StructureError:
                continue
            if self._types.kind(number) in wanted:
                return self._type(number)
        return None

    def find_object(self, _prog: Program, name: str, flags: FindObjectFlags, _file: str | None) -> Object | None:
        if flags & FindObjectFlags.CONSTANT and name in self._constants():
            number, value = self._constants()[name]
            return Object(self._prog, self._type(number), value=value)
        if not flags & FindObjectFlags.VARIABLE or name not in self._image.symbols:
            return None
        kind = self._types.variable(name)
        if kind is None and name not in VARIABLES:
            return None
        try:
            found = self._type(kind) if kind is not None else self._prog.type(VARIABLES[name])
        except LookupError:  # another generation's
            return None
        return Object(self._prog, found, address=self._image.symbols[name])

    def _all_constants(self) -> dict[str, tuple[int, int]]:
        """Enumerators by name: their type, and their value."""
        enums = (each for each in range(1, len(self._btf.types)) if self._types.kind(each) in {Kind.ENUM, Kind.ENUM64})
        return {name: (each, value) for each in enums for value, name in self._types.enumerators(each).items()}

    def _type(self, number: int) -> Type:
        if number not in self._made:
            self._made[number] = self._new(number)
        return self._made[number]

    def _new(self, number: int) -> Type:
        kind = self._types.kind(number)
        if kind in ALIASES and kind is not Kind.TYPEDEF:
            return self._type(self._types.target(number))
        make = getattr(self, f"_{kind.name.lower()}", None)
        made: Type = make(number, self._types.spelling(number)) if make else self._prog.void_type()
        return made

    def _struct(self, number: int, name: str) -> Type:
        return self._prog.struct_type(_tag(name), self._types.size(number), self._members(number))

    def _union(self, number: int, name: str) -> Type:
        return self._prog.union_type(_tag(name), self._types.size(number), self._members(number))

    def _fwd(self, _number: int, name: str) -> Type:
        return self._prog.struct_type(_tag(name))

    def _members(self, number: int) -> list[TypeMember]:
        return [
            TypeMember(partial(self._member, each.type, each.width), each.name, each.offset)
            for each in self._types.members(number).values()
        ]

    def _ptr(self, number: int, _name: str) -> Type:
        return self._prog.pointer_type(self._pointed(number))

    def _array(self, number: int, _name: str) -> Type:
        element, count = self._types.element(number)
        made = self._type(element)
        # One of no elements is a flexible array member.
        return self._prog.array_type(made, count) if count else self._prog.array_type(made)

    def _int(self, number: int, name: str) -> Type:
        size = self._types.size(number)
        if self._types.boolean(number):
            return self._prog.bool_type(name, size)
        return self._prog.int_type(name, size, self._types.signed(number))

    def _typedef(self, number: int, name: str) -> Type:
        return self._prog.typedef_type(name, self._type(self._types.target(number)))

    def _enum(self, number: int, name: str) -> Type:
        signed = self._types.signed(number)
        whole = self._prog.int_type("int" if signed else "unsigned int", self._types.size(number), signed)
        values = [TypeEnumerator(each, value) for value, each in self._types.enumerators(number).items()]
        return self._prog.enum_type(_tag(name), whole, values)

    _enum64 = _enum

    def _member(self, number: int, width: int) -> Object | Type:
        made = self._type(number)
        return Object(self._prog, made, bit_field_size=width) if width else made

    def _pointed(self, number: int) -> Type:
        """What a pointer points to, functions among it."""
        prototype = self._btf.prototype(number)
        if prototype is None:
            return self._type(self._types.target(number))
        result, *arguments = prototype
        # Made when they are asked for: functions take what has them as members.
        return self._prog.function_type(
            self._type(result), [TypeParameter(partial(self._type, each)) for each in arguments]
        )


def _tag(spelling: str) -> str | None:
    """A tag out of ``struct tag``; None of a type without a name."""
    return spelling.partition(" ")[2] or None

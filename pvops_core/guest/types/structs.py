"""Values in a guest's memory by the kernel's own types: ``task.mm.pgd``.

Nothing is read before it is asked for, and everything is read anew each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import TYPE_CHECKING, Any, Final, Protocol

from pvops_core.errors import MemberError, StructureError
from pvops_core.guest.types.cprint import Writer
from pvops_core.guest.types.ctypes import COMPOUND, CTypes, TypeKind
from pvops_core.machine import GuestFault

if TYPE_CHECKING:
    from pvops_core.images import KernelImage

STRING_LIMIT: Final = 4096
LIST_LIMIT: Final = 1 << 20
"""Entries that a list is followed for."""
_OFFSETS: Final = "__per_cpu_offset"
_CURRENT: Final = ("current_task", "pcpu_hot")
"""What each CPU executes, by the first word of a per-CPU symbol: from 6.2 to 6.14 the second (asm/current.h)."""

Reader = Callable[[int], Any]


class Readable(Protocol):
    """Gives a kernel's memory."""

    def read(self, va: int, length: int) -> bytes:
        """Bytes; GuestFault where it has none."""


class Structures:
    """The typed memory of one kernel.

    Args:
        image: the kernel.
        space: reads its memory.
        cpus: how many it may have.

    Raises:
        StructureError: it has no type information that can be read.
    """

    def __init__(self, image: KernelImage, space: Readable, cpus: int) -> None:
        if (types := image.types) is None:
            raise StructureError(f"{image.path} has no type information (BTF)")
        self.types = CTypes(types, image.pointer_size)
        self.image = image
        self._space = space
        self._cpus = cpus
        # By type and by member: what is asked once is asked a thousand times.
        self._readers: dict[int, Reader] = {}
        self._members: dict[tuple[int, str], tuple[int, Reader]] = {}

    def through(self, space: Readable) -> Structures:
        """Those of the same kernel, whose memory is read in another way."""
        found = copy(self)
        found._space, found._readers, found._members = space, {}, {}  # noqa: SLF001 - its own
        return found

    def struct(self, type: str, address: int | str | Pointer) -> Any:  # noqa: ANN401 - what C has there
        """The value of a type at an address; of a structure or union something whose members are attributes.

        Args:
            type: its name, ``task_struct`` or ``struct task_struct``; any other type will do.
            address: guest-virtual address, a pointer, or a symbol.

        Raises:
            StructureError: the kernel has no such type or symbol, or no memory there.
        """
        return self.value(self.types.find(type), self._place(address, type))

    def per_cpu(self, symbol: str, cpu: int, type: str = "") -> Any:  # noqa: ANN401 - what C has there
        """A CPU's own of a per-CPU variable.

        Args:
            symbol: its symbol.
            cpu: number of the CPU.
            type: name of its type; the kernel's type information has that of most.

        Raises:
            StructureError: there is no such variable, CPU or type.
        """
        if not 0 <= cpu < self._cpus:
            raise StructureError(f"there is no CPU {cpu} of {self._cpus}", type=symbol)
        number = self.types.find(type) if type else self.types.variable(symbol)
        if number is None:
            raise StructureError("the type information does not say of what type it is: name one", type=symbol)
        return self.value(number, self._of_cpu(symbol, cpu))

    def current(self, cpu: Any) -> Any:  # noqa: ANN401 - a vCPU or its number; a task_struct
        """The task that a CPU executes, a ``struct task_struct``."""
        number = getattr(cpu, "index", cpu)
        # Before 6.2, and from 6.15 on, current_task alone.
        symbol = next((name for name in _CURRENT if name in self.image.symbols), _CURRENT[0])
        return self.struct("struct task_struct", self.word(self._of_cpu(symbol, number), symbol))

    def offset(self, type: str, path: str) -> int:
        """Bytes from the beginning of a structure to a member, ``tasks`` or ``thread.sp``."""
        number, bits = self.types.resolved(self.types.find(type)), 0
        for name in path.split("."):
            member = self.types.member(number, name)
            number, bits = self.types.resolved(member.type), bits + member.offset
        return bits // 8

    def entries(self, head: int | str | Pointer | Struct, type: str, member: str) -> Iterator[Struct]:
        """The structures of a list (``struct list_head``) that hang in it by a member."""
        start = head.address_ if isinstance(head, Struct) else self._place(head, type)
        offset, node = self.offset(type, member), start
        for _ in range(LIST_LIMIT):
            node = self.word(node, type)
            # A list ends where it began; NULL is damaged or not initialised.
            if node in {0, start}:
                return
            yield self.struct(type, node - offset)
        raise StructureError(f"the list has more than {LIST_LIMIT} entries", type=type, member=member, address=start)

    def value(self, type: int, address: int) -> Any:  # noqa: ANN401 - what C has there
        """The value of a type, by its number."""
        reader = self._readers.get(type)
        if reader is None:
            reader = self._readers[type] = self._reader(type)
        return reader(address)

    def member(self, type: int, name: str, address: int) -> Any:  # noqa: ANN401 - what C has there
        """A member of a structure, whose type is given by its number."""
        found = self._members.get((type, name))
        if found is None:
            member = self.types.member(type, name)
            reader = self._bits(member.type, member.offset % 8, member.width) if member.width else None
            found = member.offset // 8, reader or (lambda at: self.value(member.type, at))
            self._members[type, name] = found
        return found[1](address + found[0])

    def read(self, address: int, length: int, type: str = "") -> bytes:
        """Bytes of the kernel's memory; StructureError where it has none."""
        try:
            return self._space.read(address, length)
        except GuestFault as fault:
            raise StructureError("the kernel has no memory there", type=type, address=address) from fault

    def word(self, address: int, type: str = "") -> int:
        """A pointer's worth of memory."""
        return int.from_bytes(self.read(address, self.types.pointer_size, type), "little")

    def name(self, address: int) -> str:
        """The symbol at an address; empty where there is none."""
        found = self.image.symbol_at(address)
        return found[0] if found is not None and not found[1] else ""

    def _place(self, address: int | str | Pointer, type: str) -> int:
        if not isinstance(address, str):
            return int(address)
        if address not in self.image.symbols:
            raise StructureError(f"{self.image.path} has no symbol {address!r}", type=type)
        return self.image.symbols[address]

    def _of_cpu(self, symbol: str, cpu: int) -> int:
        symbols, size = self.image.symbols, self.types.pointer_size
        here = self._place(symbol, symbol)
        # Without SMP there are no offsets.
        offset = self.word(symbols[_OFFSETS] + cpu * size, symbol) if _OFFSETS in symbols else 0
        return here + offset & (1 << 8 * size) - 1

    def _reader(self, type: int) -> Reader:
        types, number = self.types, self.types.resolved(type)
        kind = types.kind(number)
        if kind in COMPOUND:
            return lambda at: Struct(self, number, at)
        if kind is TypeKind.PTR:
            target = types.target(number)
            return lambda at: Pointer(self, target, self.word(at, types.spelling(number)))
        if kind is TypeKind.ARRAY:
            element, count = types.element(number)
            if types.character(element):
                return lambda at: _text(self.read(at, count, "char []"))
            return lambda at: Array(self, element, count, at)
        return self._integer(type, number)

    def _integer(self, type: int, number: int) -> Reader:
        types, said = self.types, self.types.spelling(type)
        size, signed = types.size(number), types.kind(number) is not TypeKind.PTR and types.signed(number)
        if types.boolean(number):
            return lambda at: any(self.read(at, size, said))
        return lambda at: int.from_bytes(self.read(at, size, said), "little", signed=signed)

    def _bits(self, type: int, first: int, width: int) -> Reader:
        types, number, said = self.types, self.types.resolved(type), self.types.spelling(type)
        # As many bytes as hold the field.
        length, mask = (first + width + 7) // 8, (1 << width) - 1
        signed, boolean = types.signed(number), types.boolean(number)

        def read(at: int) -> int:
            value = int.from_bytes(self.read(at, length, said), "little") >> first & mask
            return bool(value) if boolean else value - (value >> width - 1 << width) if signed else value

        return read


class _Value:
    """What every value has; the names end in an underscore since members' names are C's.

    ``number_`` is that of a type: a structure's own, of an array's elements, or of a pointer's target.
    """

    __slots__ = ("_of", "address_", "number_")

    def __init__(self, of: Structures, type: int, address: int) -> None:
        self._of = of
        self.number_ = type
        self.address_ = address

    def __hash__(self) -> int:
        return hash(self.address_)


class Struct(_Value):
    """A structure or union: its members are attributes, or items where Python has other plans for the name."""

    __slots__ = ()

    @property
    def type_(self) -> str:
        """Its type, as C spells it."""
        return self._of.types.spelling(self.number_)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - what C has there
        return _attribute(self, name)

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - what C has there
        return self._of.member(self.number_, name, self.address_)

    def __dir__(self) -> list[str]:
        return [*self._of.types.members(self.number_), "address_", "number_", "type_"]

    def __iter__(self) -> Iterator[str]:
        return iter(self._of.types.members(self.number_))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Struct) and (self.number_, self.address_) == (other.number_, other.address_)

    __hash__ = _Value.__hash__

    def __str__(self) -> str:
        return Writer(self._of).structure(self)

    def __repr__(self) -> str:
        return f"({self.type_} *){self.address_:#x}"


class Array(_Value):
    """An array: its elements are items. One of plain characters is a ``str`` instead."""

    __slots__ = ("_count",)

    def __init__(self, of: Structures, type: int, count: int, address: int) -> None:
        super().__init__(of, type, address)
        self._count = count

    @property
    def type_(self) -> str:
        """Its type, as C spells it."""
        return f"{self._of.types.spelling(self.number_)} [{self._count}]"

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401 - what C has there
        at = index + self._count if index < 0 else index
        # One without a length (a flexible array member) has no end that is known.
        if at < 0 or (at >= self._count and self._count):
            raise IndexError(f"{self.type_} has no element {index}")
        return self._of.value(self.number_, self.address_ + at * self._of.types.size(self.number_))

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(self._count))

    def __bytes__(self) -> bytes:
        return self._of.read(self.address_, self._count * self._of.types.size(self.number_), self.type_)

    def __str__(self) -> str:
        return Writer(self._of).array(self)

    def __repr__(self) -> str:
        return f"({self.type_})@{self.address_:#x}"


class Pointer(_Value):
    """A pointer: its target's members are attributes, its elements items, and it is a number where one is wanted."""

    __slots__ = ()

    @property
    def type_(self) -> str:
        """Its type, as C spells it."""
        target = self._of.types.spelling(self.number_)
        return target + ("*" if target.endswith("*") else " *")

    def string_(self, limit: int = STRING_LIMIT) -> str:
        """The text that it points to, to its NUL."""
        found = bytearray()
        while len(found) < limit and b"\0" not in found:
            # Up to 64 bytes, not over a border of 64: so no page behind the string is read.
            at = self.address_ + len(found)
            found += self._of.read(at, min(64, limit - len(found), -at % 64 or 64), self.type_)
        return _text(bytes(found))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - what C has there
        return _attribute(self, name)

    def __getitem__(self, key: int | str) -> Any:  # noqa: ANN401 - what C has there
        types, shown = self._of.types, key if isinstance(key, str) else ""
        if not self.address_:
            raise StructureError("the pointer is NULL", type=self.type_, member=shown, address=0)
        if isinstance(key, int):
            return self._of.value(self.number_, self.address_ + key * types.size(self.number_))
        number = types.resolved(self.number_)
        if types.kind(number) not in COMPOUND:
            raise MemberError(f"points to no structure, so it has no {key!r}", type=self.type_, address=self.address_)
        return self._of.member(number, key, self.address_)

    def __int__(self) -> int:
        return self.address_

    __index__ = __int__

    def __bool__(self) -> bool:
        return bool(self.address_)

    def __eq__(self, other: object) -> bool:
        return self.address_ == (other.address_ if isinstance(other, Pointer) else other)

    __hash__ = _Value.__hash__

    def __str__(self) -> str:
        return Writer(self._of).pointer(self)

    def __repr__(self) -> str:
        return f"({self.type_}){self.address_:#x}"


def _attribute(value: Struct | Pointer, name: str) -> Any:  # noqa: ANN401 - what C has there
    """A member as an attribute; AttributeError where there is none, as Python's own tools expect."""
    # Tools look for dunder names by the dozen, which no C structure has.
    if name.startswith("__") and name.endswith("__"):
        raise AttributeError(name)
    try:
        return value[name]
    except MemberError as error:
        raise AttributeError(str(error), name=name, obj=value) from error


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "backslashreplace")

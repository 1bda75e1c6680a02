"""Machine code made at start-up: small C functions over an array of words, written with LLVM.

A function of numba's is called through a wrapper that looks after Python exceptions, and numba itself takes a quarter
of a second to come up; for a handful of functions of a few instructions each both cost more than they give.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from io import BytesIO
from typing import TYPE_CHECKING, Any

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from llvmlite import binding, ir

from pvops_core.errors import MachineError
from pvops_core.machine.unicorn.llvm.routines import I32, I64, VOID

if TYPE_CHECKING:
    from pvops_core.machine.unicorn.llvm.routines import Source

_I32, _I64 = ir.IntType(32), ir.IntType(64)
Value = Any  # llvmlite has no types


class Routine:
    """The body of one function while it is written. Its last parameter is a pointer to 64-bit words.

    Attributes:
        arguments: the function's parameters, without the words.
    """

    def __init__(self, function: Value) -> None:
        self._function = function
        *self.arguments, self._words = function.args
        self._builder = ir.IRBuilder(function.append_basic_block())

    def _place(self, slot: IntEnum) -> Value:
        return self._builder.gep(self._words, [_I64(int(slot))])

    def address(self, slot: IntEnum) -> Value:
        """The address of a word."""
        return self._builder.ptrtoint(self._place(slot), _I64)

    def get(self, slot: IntEnum) -> Value:
        """A word."""
        return self._builder.load(self._place(slot))

    def put(self, slot: IntEnum, value: Value | int) -> None:
        """Set a word."""
        self._builder.store(self._number(value), self._place(slot))

    @staticmethod
    def _number(value: Value | int) -> Value:
        return _I64(value) if isinstance(value, int) else value

    def add(self, left: Value, right: Value | int) -> Value:
        """Left plus right."""
        return self._builder.add(left, self._number(right))

    def subtract(self, left: Value, right: Value | int) -> Value:
        """Left minus right."""
        return self._builder.sub(left, self._number(right))

    def multiply(self, left: Value, right: Value | int) -> Value:
        """Left times right."""
        return self._builder.mul(left, self._number(right))

    def differ(self, left: Value, right: Value) -> Value:
        """1 if they are not the same, else 0."""
        return self._builder.zext(self._builder.icmp_unsigned("!=", left, right), _I64)

    def high(self, value: Value) -> Value:
        """The upper 32 bits."""
        return self._builder.lshr(value, _I64(32))

    def both(self, left: Value, right: Value | int) -> Value:
        """Left and right, bit by bit."""
        return self._builder.and_(left, self._number(right))

    def either(self, left: Value, right: Value | int) -> Value:
        """Left or right, bit by bit."""
        return self._builder.or_(left, self._number(right))

    def ones(self, size: Value) -> Value:
        """So many bytes (1 to 4, 32 bits wide) of ones, as a 32-bit number."""
        # A shift by 32 is undefined in LLVM; sizes of 1 to 4 shift by 24 to 0.
        return self._builder.lshr(_I32(0xFFFFFFFF), self._builder.sub(_I32(32), self._builder.mul(size, _I32(8))))

    def load8(self, address: Value) -> Value:
        """The unsigned byte at an address."""
        kind = ir.IntType(8).as_pointer()
        return self._builder.zext(self._builder.load(self._builder.inttoptr(address, kind)), _I64)

    def load16(self, address: Value) -> Value:
        """The unsigned 16-bit word at an address."""
        kind = ir.IntType(16).as_pointer()
        return self._builder.zext(self._builder.load(self._builder.inttoptr(address, kind)), _I64)

    def load32(self, address: Value) -> Value:
        """The unsigned 32-bit word at an address."""
        return self._builder.zext(self._builder.load(self._builder.inttoptr(address, _I32.as_pointer())), _I64)

    def load64(self, address: Value) -> Value:
        """The 64-bit word at an address."""
        return self._builder.load(self._builder.inttoptr(address, _I64.as_pointer()))

    def store32(self, address: Value, value: Value | int) -> None:
        """Write the low 32 bits of a value to an address."""
        pointer = self._builder.inttoptr(address, _I32.as_pointer())
        self._builder.store(self._builder.trunc(self._number(value), _I32), pointer)

    def call(self, slot: IntEnum, *arguments: Value) -> Value:
        """Call the C function whose address is in a word; it gives a 32-bit number, or nothing that is looked at."""
        kind = ir.FunctionType(_I32, [argument.type for argument in arguments])
        return self._builder.call(self._builder.inttoptr(self.get(slot), kind.as_pointer()), arguments)

    def leave(self, name: str, *arguments: Value) -> None:
        """Return by way of another of the functions made with this one."""
        other = self._function.module.get_global(name)
        other.linkage = "internal"  # a jump within the code, and no name to be looked up
        self._builder.call(other, [*arguments, self._words], tail=True)
        self._builder.ret_void()

    def narrow(self, value: Value) -> Value:
        """The low 32 bits, as C passes an int."""
        return self._builder.trunc(value, _I32)

    def wide(self, value: Value) -> Value:
        """A 32-bit number as a 64-bit one."""
        return self._builder.zext(value, _I64)

    @contextmanager
    def when(self, left: Value, comparison: str, right: Value | int, *, likely: bool | None = None) -> Iterator[None]:
        """What is written inside runs only if a signed comparison holds."""
        with self._builder.if_then(self._builder.icmp_signed(comparison, left, self._number(right)), likely=likely):
            yield

    @contextmanager
    def each(self, count: Value) -> Iterator[Value]:
        """What is written inside runs for each number from 0 to ``count`` - 1, which it gives."""
        builder, before = self._builder, self._builder.block
        test, body, after = (self._function.append_basic_block() for _ in range(3))
        builder.branch(test)
        builder.position_at_end(test)
        # A phi node takes the number from before the loop and from its body, which is known only when that is
        # written.
        number = builder.phi(_I64)
        number.add_incoming(_I64(0), before)
        builder.cbranch(builder.icmp_signed("<", number, count), body, after)
        # The body may have made blocks of its own; what goes back is the last of them.
        builder.position_at_end(body)
        yield number
        number.add_incoming(builder.add(number, _I64(1)), builder.block)
        builder.branch(test)
        builder.position_at_end(after)

    def done(self, value: Value | None = None) -> None:
        """Return."""
        if value is None:
            self._builder.ret_void()
        else:
            self._builder.ret(value)


def constant(bits: int, number: int) -> Value:
    """A number of so many bits."""
    return ir.IntType(bits)(number)


def compiled(sources: Mapping[str, Source]) -> tuple[bytes, dict[str, int]]:
    """Make functions.

    Returns:
        Code that may lie anywhere, for any processor of the host's kind, and where in it each function begins.
    """
    module = ir.Module(name="pvops")
    # All are declared before the first is written, so that one can leave by way of another.
    kinds = {VOID: ir.VoidType(), I32: _I32, I64: _I64}
    for name, source in sources.items():
        parameters = [*map(kinds.__getitem__, source.parameters), _I64.as_pointer()]
        ir.Function(module, ir.FunctionType(kinds[source.result], parameters), name=name)
    for name, source in sources.items():
        source.write(Routine(module.get_global(name)))
    return assembled(module)


def assembled(module: ir.Module) -> tuple[bytes, dict[str, int]]:
    """The same of a module that has been written."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    # At -O2: these run at every block of every guest. Where they will lie is not known.
    target = binding.Target.from_default_triple()
    machine = target.create_target_machine(opt=2, reloc="pic", codemodel="small")
    parsed = binding.parse_assembly(str(module))
    # A module that is not sound would be compiled all the same, and fail anywhere.
    parsed.verify()
    file = ELFFile(BytesIO(machine.emit_object(parsed)))
    sections = {section.name: section for section in file.iter_sections()}
    symbols = sections[".symtab"]
    if ".rela.text" in sections or not isinstance(symbols, SymbolTableSection):
        raise MachineError("LLVM made a function that does not stand by itself")
    functions = (symbol for symbol in symbols.iter_symbols() if symbol["st_info"]["type"] == "STT_FUNC")
    return sections[".text"].data(), {symbol.name: symbol["st_value"] for symbol in functions}

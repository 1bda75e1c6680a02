"""What the catalogue is made of: ops, slots and layouts."""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable, Mapping
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import UsageError

if TYPE_CHECKING:
    from pvops_core.kinds import MachineKind
    from pvops_core.ops.ctypes import CType


class Convention(enum.Enum):
    """How a slot is called."""

    REGPARM3 = "regparm(3)"
    """i386 C function: eax, edx, ecx, then the stack; eax, ecx, edx and the flags are lost."""
    SYSV = "sysv"
    """x86_64 C function: rdi, rsi, rdx, rcx, r8, r9; the caller-saved registers are lost."""
    CALLEE_SAVE = "callee-save"
    """As the C function of the machine, but only the result register (on i386 also edx) and the flags are lost."""
    JUMP = "jump"
    """Jumped to, never called, and does not come back: iret, irq_enable_sysexit."""
    NONE = "data"
    """Not a function: the slot holds a value."""


class Clobber(enum.IntFlag):
    """Registers that the code put in place of a call may destroy: the clobber word of a 2.6 site record."""

    NONE = 0
    EAX = 1
    ECX = 2
    EDX = 4
    ANY = 7


@attrs.frozen
class Arg:
    """One argument of an op.

    Attributes:
        name: as in the kernel's header; ``cpu_nr`` where that says ``cpu``, which is the vCPU in a hook.
        ctype: its C type.
    """

    name: str
    ctype: CType

    def bits(self, kind: MachineKind) -> int:
        """Width as passed, in bits, on a machine of this kind."""
        return self.ctype.bits(kind)


@attrs.frozen
class Op:
    """One paravirt operation as one generation of kernels knows it.

    Attributes:
        name: the hook's name, unique over all layouts.
        group: the kernel's group: info, init, x86_init, time, cpu, irq, apic, mmu or lock.
        result: C type of the result; None for a void function.
        args: its arguments in C order.
        convention: how it is called.
        clobbers: what its C call sites allow to be destroyed (2.6; the later record has no such word).
        source: the header that declares it.
    """

    name: str
    group: str
    result: CType | None
    args: tuple[Arg, ...]
    convention: Convention
    clobbers: Clobber
    source: str

    @property
    def doc(self) -> str:
        """What it does: the first paragraph of its hook's docstring, in one line; empty for an op that has no hook."""
        # The specs are a room further down and are found by name: the catalogue itself never needs them.
        spec = import_module("pvops_core.hookspecs.specs").specs().get(self.name)
        return " ".join(spec.doc.partition("\n\n")[0].split()) if spec else ""

    @property
    def is_data(self) -> bool:
        """Whether the slot holds a value and not a function."""
        return self.convention is Convention.NONE

    @property
    def prototype(self) -> str:
        """The op as a C declaration."""
        result = self.result.name if self.result else "void"
        if self.is_data:
            return _declare(result, self.name)
        args = ", ".join(_declare(arg.ctype.name, arg.name) for arg in self.args) or "void"
        return f"{_declare(result, self.name)}({args})"


def _declare(ctype: str, name: str) -> str:
    return f"{ctype}{name}" if ctype.endswith("*") else f"{ctype} {name}"


@attrs.frozen
class Slot:
    """An op's place in a layout's table.

    Attributes:
        type: its type number: the place in the table, in units of a pointer, as site records give it.
        op: the op.
        path: the kernel's own path, for example ``mmu.lazy_mode.enter`` or ``pv_irq_ops.save_fl``.
        symbol: the kernel variable that holds the slot.
        offset: the slot's offset in that variable, in bytes.
    """

    type: int
    op: Op
    path: str
    symbol: str
    offset: int


@attrs.frozen(slots=False)
class Layout:
    """A generation's table of ops.

    Attributes:
        name: for example ``2.6.23-lapic-pae`` or ``7.2-64``.
        kind: the machine its kernels are for.
        slots: the table, in order of type number, without gaps.
        boot_hooks: hooks outside the table, numbered on their own from 0 (the built-in guest keeps them in
            ``boot_ops``).
        record_size: bytes of one ``.parainstructions`` record; 0 where call sites are ALTERNATIVEs, from 6.8 on.
    """

    name: str
    kind: MachineKind
    slots: tuple[Slot, ...]
    boot_hooks: tuple[Slot, ...]
    record_size: int

    @property
    def pointer_size(self) -> int:
        """Bytes of a slot."""
        return self.kind.pointer_size

    @cached_property
    def _by_op(self) -> Mapping[str, Slot]:
        return {slot.op.name: slot for slot in (*self.boot_hooks, *self.slots)}

    @cached_property
    def _in_table(self) -> frozenset[str]:
        return frozenset(slot.op.name for slot in self.slots)

    @cached_property
    def _by_path(self) -> Mapping[str, Slot]:
        return {slot.path: slot for slot in self.slots}

    def __contains__(self, name: object) -> bool:
        """Whether the layout has an op or boot hook of this name."""
        return name in self._by_op

    def has_slot(self, name: str) -> bool:
        """Whether the table itself, boot hooks apart, has an op of this name."""
        return name in self._in_table

    def by_type(self, number: int) -> Slot:
        """The slot of a type number; UsageError if the table has none."""
        if 0 <= number < len(self.slots):
            return self.slots[number]
        raise UsageError(f"layout {self.name} has no op of type {number} (it has {len(self.slots)})")

    def by_op(self, name: str) -> Slot:
        """The slot of an op or boot hook, by its hook name; UsageError if the layout has none."""
        try:
            return self._by_op[name]
        except KeyError:
            raise UsageError(f"layout {self.name} has no op {name!r}{_meant(name, self._by_op)}") from None

    def by_path(self, path: str) -> Slot:
        """The slot of an op by the kernel's own path; UsageError if the layout has none."""
        try:
            return self._by_path[path]
        except KeyError:
            raise UsageError(f"layout {self.name} has no op path {path!r}{_meant(path, self._by_path)}") from None

    def slot_address(self, symbols: Mapping[str, int], number: int) -> int:
        """Guest-virtual address of the slot of a type number.

        Args:
            symbols: addresses of the kernel's variables, among them the slot's (``pv_ops``, ``paravirt_ops``,
                ``pv_mmu_ops``).
            number: type number.

        Raises:
            UsageError: there is no such type, or the symbol is not among those given.
        """
        slot = self.by_type(number)
        try:
            return symbols[slot.symbol] + slot.offset
        except KeyError:
            raise UsageError(f"no symbol {slot.symbol}, which holds {slot.path} of layout {self.name}") from None


def _meant(name: str, there: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, there, n=1)
    return f" (did you mean {close[0]}?)" if close else ""

"""Patchlets: code that may replace a call, its assembly and bytes in one place, and the check that they are true."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import PatchError
from pvops_core.kinds import MachineKind
from pvops_core.ops import LAYOUTS, Clobber, Convention, signature
from pvops_core.patching.code.clobbers import Refuse, Rules
from pvops_core.patching.code.clobbers import check as check_effects
from pvops_core.patching.code.disasm import disassemble, normal
from pvops_core.patching.code.template import Template, parse, references, substitute
from pvops_core.patching.patchdefault import LONGEST_SITE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from pvops_core.ops import Layout, Op

# Where the check assembles a patchlet: any places that a rel32 reaches and that no constant in code looks like.
_TRIAL_ADDRESS = 0x10000000
_TRIAL_SYMBOLS = 0x20000000
_CLOBBERS = {
    Clobber.EAX: ("eax", "rax"),
    Clobber.ECX: ("ecx", "rcx"),
    Clobber.EDX: ("edx", "rdx"),
}


@attrs.frozen(slots=False)
class Patchlet:
    """Code that may replace a call of an op.

    Attributes:
        op: hook name of the op.
        asm: what the code does, in Intel syntax, instructions parted by ``;``. Symbols stand as ``{symbol}`` or
            ``{symbol+4}``, an own instruction as ``{.+13}`` (bytes from the start), a ``rip``-relative operand as
            ``[rel {symbol}]``.
        code: its bytes in hexadecimal with places ``{symbol:abs32}``, ``{symbol+4:rel32}`` (also abs8, abs64, rel8),
            filled in at patch time. Empty: the call becomes nops.
        clobbers: registers beside the result that it destroys; ANY means all that a C function may, on x86_64 too.
        layouts: names or globs of the layouts that it is for.
        where_it_fits: whether it may be longer than the op's usual sites; it is then used only at those that are long
            enough.
        keeping: symbols that it calls and that change no register.
    """

    op: str
    asm: str
    code: str
    clobbers: Clobber = Clobber.NONE
    layouts: Collection[str] = ("*",)
    where_it_fits: bool = False
    keeping: tuple[str, ...] = ()

    @cached_property
    def template(self) -> Template:
        """The code as bytes and places; PatchError if it does not parse."""
        try:
            return parse(self.code)
        except ValueError as error:
            raise PatchError(str(error), op=self.op) from None

    @property
    def size(self) -> int:
        """Bytes of the code."""
        return len(self.template.code)

    def serves(self, layout: Layout) -> bool:
        """Whether it is for this layout, and the layout has the op."""
        return layout.has_slot(self.op) and any(fnmatchcase(layout.name, glob) for glob in self.layouts)

    def assemble(self, address: int, symbols: Mapping[str, int]) -> bytes:
        """The bytes as they must be at a guest-virtual address.

        Args:
            address: where the code will run, not where it is being written.
            symbols: addresses of the symbols in its places.

        Raises:
            PatchError: a symbol is missing, or out of reach of its place.
        """
        try:
            return self.template.fill(address, symbols)
        except PatchError as error:
            raise attrs.evolve(error, op=self.op, code=self.template.code) from None


def usual_length(op: Op, layout: Layout) -> int:
    """Bytes of the shortest site that kernels of a layout commonly have for an op.

    6.1 has 6-byte calls only. In 2.6 calls from C are 6 bytes, those of the interrupt flag 10 (two registers saved
    around the call), and the jumps of iret and sysexit 7.
    """
    # Since 5.13 every site is ``call *disp32(%rip)``, or the same with an address: six bytes.
    if not layout.has_slot("patch"):
        return 6
    if op.convention is Convention.JUMP:
        # iret and sysexit: ``jmp *%cs:mem``.
        return 7
    # Sites of irq ops push and pop two registers around the call (2.6.23).
    return 10 if op.clobbers is Clobber.EAX else 6


def check(patchlet: Patchlet, op: Op, kind: MachineKind, limit: int) -> None:
    """Prove that a patchlet's bytes are its assembly, fit, and do no harm to the site.

    Args:
        patchlet: the patchlet.
        op: the op as the layout knows it.
        kind: the machine.
        limit: bytes that the code may have.

    Raises:
        PatchError: with op, bytes and the reason.
    """
    template = patchlet.template
    refuse = Refuse(patchlet.op, template.code)
    if op.is_data:
        refuse("the slot holds a value and is never called")
    if len(template.code) > limit:
        refuse(f"{len(template.code)} bytes do not fit into a site of {limit}")
    # The site's own list of registers is the contract; what destroys more would break its caller.
    if patchlet.clobbers & ~op.clobbers:
        refuse(f"it destroys {patchlet.clobbers!r}, but the op's sites allow {op.clobbers!r}")
    symbols = _trial_symbols(template)
    filled = template.fill(_TRIAL_ADDRESS, symbols)
    try:
        code = disassemble(filled, _TRIAL_ADDRESS, kind.bits)
        meant = substitute(patchlet.asm, _TRIAL_ADDRESS, symbols)
    except PatchError as error:
        refuse(error.message)
    except KeyError as error:
        refuse(f"the assembly names {error.args[0]}, for which the code has no place")
    found = [insn.text for insn in code]
    expected = [normal(part) for part in meant.split(";") if part.strip()]
    # Bytes and assembly are written by hand, side by side, and each is of no use if it says something else.
    if found != expected:
        refuse(f"the bytes say {'; '.join(found)!r}, the assembly {'; '.join(expected)!r}")
    check_effects(code, _rules(patchlet, op, kind, symbols), refuse)


def check_all(patchlets: Iterable[Patchlet], kinds: Collection[MachineKind] = ()) -> None:
    """Check a backend's patchlets for every layout that they are for.

    Args:
        patchlets: the patchlets.
        kinds: the kinds of machine that the backend knows; empty for all.

    Raises:
        PatchError: one of them fails, is for no layout, or is the second one for an op of a layout.
    """
    patchlets = tuple(patchlets)
    layouts = [layout for layout in LAYOUTS.values() if not kinds or layout.kind in kinds]
    for patchlet in patchlets:
        served = [layout for layout in layouts if patchlet.serves(layout)]
        if not served:
            Refuse(patchlet.op, patchlet.template.code)(f"no layout of {', '.join(patchlet.layouts)} has this op")
        for layout in served:
            op = layout.by_op(patchlet.op).op
            limit = LONGEST_SITE if patchlet.where_it_fits else usual_length(op, layout)
            check(patchlet, op, layout.kind, limit)
    for layout in layouts:
        select(patchlets, layout)


def select(patchlets: Iterable[Patchlet], layout: Layout) -> Mapping[str, Patchlet]:
    """The patchlets for a layout by op name; PatchError if an op has two."""
    chosen: dict[str, Patchlet] = {}
    for patchlet in patchlets:
        if not patchlet.serves(layout):
            continue
        if patchlet.op in chosen:
            Refuse(patchlet.op, patchlet.template.code)(f"it is the second patchlet of the op for layout {layout.name}")
        chosen[patchlet.op] = patchlet
    return chosen


def _trial_symbols(template: Template) -> Mapping[str, int]:
    """Addresses, unlike one another, that the check gives to the symbols; small ones where a byte must hold them."""
    small = {place.symbol for place in template.places if place.size == 1 and place.form == "abs8"}
    near = {place.symbol for place in template.places if place.form == "rel8"}
    names = sorted({place.symbol for place in template.places})
    return {
        # Addresses for the trial: small where a byte holds them, near where a byte's distance reaches them.
        name: 0x10 + number
        if name in small
        else _TRIAL_ADDRESS + 0x40  # in a byte's reach
        if name in near
        else _TRIAL_SYMBOLS + 0x1000 * number
        for number, name in enumerate(names)
    }


def _rules(patchlet: Patchlet, op: Op, kind: MachineKind, symbols: Mapping[str, int]) -> Rules:
    called = signature(op, kind)
    return Rules(
        signature=called,
        may_write=frozenset(called.result) | (frozenset(_registers(patchlet.clobbers, op, kind)) & called.clobbers),
        places=frozenset(symbols[symbol] + addend for symbol, addend in references(patchlet.asm)),
        keeping=frozenset(symbols[symbol] for symbol in patchlet.keeping if symbol in symbols),
    )


def _registers(clobbers: Clobber, op: Op, kind: MachineKind) -> Iterator[str]:
    # ANY of a 64-bit C function is all that its callers do not keep.
    if clobbers is Clobber.ANY and op.convention is Convention.SYSV:
        yield from signature(op, kind).clobbers
    for bit, names in _CLOBBERS.items():
        if clobbers & bit:
            yield names[kind is MachineKind.X86_64]

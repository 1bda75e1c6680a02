"""Kernels whose table has a ``patch`` op, to 5.12: what that op of each platform puts in place of a call.

The code it copies lies in the kernel between two symbols, so it is read from there: ``native_patch`` of
arch/x86/kernel/paravirt_patch_32.c and _64.c (to 5.2; arch/i386/kernel/paravirt.c in 2.6.23), ``lguest_patch`` of
arch/x86/lguest/boot.c, ``xen_patch`` of arch/x86/xen/enlighten.c (to 4.13; then ``paravirt_patch_default``
itself). From 5.3 on ``native_patch`` has a table of bytes without symbols (arch/x86/kernel/paravirt_patch.c), which is
the same in every build.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import ImageError, PatchError
from pvops_core.patching.code.disasm import disassemble, instruction_lengths
from pvops_core.patching.fills import function_code, switched_on
from pvops_core.patching.patchdefault import patch_default

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.ops import Slot
    from pvops_core.patching.context import PatchContext

PATCH_TABLES: Final = frozenset({"patch_data_xxl", "patch_data_lock"})
"""Of 5.3 to 5.12: the bytes that ``native_patch`` copies, here by op; without XEN_PV there are those of locks alone."""

_FIXED: Final = {
    8: {"irq_disable": "fa", "irq_enable": "fb", "save_fl": "9c58", "restore_fl": "579d", "read_cr2": "0f20d0",
        "read_cr3": "0f20d8", "write_cr3": "0f22df", "wbinvd": "0f09", "usergs_sysret64": "0f01f8480f07",
        "swapgs": "0f01f8", "queued_spin_unlock": "c60700", "vcpu_is_preempted": "31c0"},
    4: {"irq_disable": "fa", "irq_enable": "fb", "save_fl": "9c58", "restore_fl": "509d", "read_cr2": "0f20d0",
        "read_cr3": "0f20d8", "write_cr3": "0f22d8", "iret": "cf", "queued_spin_unlock": "c60000",
        "vcpu_is_preempted": "31c0"},
}  # fmt: skip

_NATIVE_ONLY: Final = {
    "queued_spin_unlock": "__raw_callee_save___native_queued_spin_unlock",
    "vcpu_is_preempted": "__raw_callee_save___native_vcpu_is_preempted",
}
"""Ops that ``native_patch`` inlines while their slot holds this: ``pv_is_native_spin_unlock`` and its like (4.7)."""

_IDENTITIES: Final = {
    8: {"_paravirt_ident_32": "89f8", "_paravirt_ident_64": "4889f8"},
    4: {"_paravirt_ident_32": "", "_paravirt_ident_64": ""},
}
"""Functions that give their argument back, and what a call of one becomes: a move, or nothing in regparm(3)."""

_LGUEST: Final = {"irq_disable": "cli", "irq_enable": "sti", "restore_fl": "popf", "save_fl": "pushf"}
_XEN: Final = ("irq_enable", "irq_disable", "save_fl", "restore_fl")
_PLACED: Final = "have_vcpu_info_placement"
_CONVERSIONS: Final = frozenset({"pte_val", "pmd_val", "pgd_val", "make_pte", "make_pmd", "make_pgd"})
LONGEST_TEMPLATE: Final = 64
_CALLER: Final = "paravirt_patch_call"


@attrs.frozen
class OwnTemplate:
    """Code that a patch op copies over calls of an op.

    Attributes:
        code: its bytes.
        address: where they are in the kernel; 0 for code that may be anywhere.
        relocation: offset of a word of 32 bits that is relative to its place; None where there is none.
        needs: the template stands for this function alone; 0 for whatever the slot holds.
    """

    code: bytes
    address: int = 0
    relocation: int | None = None
    needs: int = 0

    def at(self, place: int) -> bytes:
        """The code as it must be at another place."""
        if self.relocation is None:
            return self.code
        code, at = bytearray(self.code), self.relocation
        word = int.from_bytes(code[at : at + 4], "little") + self.address - place
        code[at : at + 4] = (word & 0xFFFFFFFF).to_bytes(4, "little")
        return bytes(code)


@attrs.frozen(eq=False)
class OwnPatch:
    """A kernel's own ``patch`` op, as a patcher.

    Attributes:
        templates: op name to its template.
        identities: address of a function that gives its argument back, to what a call of it becomes.
        gives_up: a site that is too short for its template is left alone; else the default rule decides.
    """

    templates: Mapping[str, OwnTemplate]
    identities: Mapping[int, bytes]
    gives_up: bool

    def __call__(self, ctx: PatchContext, type: int, clobbers: int, insnbuf: bytearray, addr: int, len: int) -> int:
        """Write code for the site into ``insnbuf``, as for every patcher."""
        template, target = self.templates.get(ctx.layout.by_type(type).op.name), ctx.target(type)
        if template is not None and template.needs in {0, target}:
            code = template.at(addr)
            used = memoryview(code).nbytes
            if used <= len:
                insnbuf[:used] = code
                return used
            if self.gives_up:
                return len
        if target in self.identities:
            code = self.identities[target]
            used = memoryview(code).nbytes
            if used <= len:
                insnbuf[:used] = code
            return min(used, len)
        return patch_default(ctx, type, clobbers, insnbuf, addr, len)

    def inlines(self, op: str, address: int, code: bytes) -> bool:
        """Whether what became of a site is the op's template."""
        template = self.templates.get(op)
        return template is not None and bool(template.code) and code.startswith(template.at(address))


def own_patch(image: KernelImage, slot: Slot, function: int) -> OwnPatch:
    """The patch op of a kernel on a platform.

    Args:
        image: the kernel.
        slot: the table's slot of the op.
        function: what it holds on the platform.

    Raises:
        ImageError: the function is none whose rules are known.
    """
    name, distance = image.symbol_at(function) or ("", 0)
    # Compilers name clones of a function with a dot behind the name.
    reader = _READERS.get(name.partition(".")[0]) if not distance else None
    if reader is None:
        message = f"is {name or hex(function)} here; known are {', '.join(_READERS)}"
        raise image.error(message, field=slot.path)
    identities = {
        image.symbols[symbol]: bytes.fromhex(code)
        for symbol, code in _IDENTITIES[image.pointer_size].items()
        if symbol in image.symbols
    }
    return OwnPatch(reader(image, slot), identities, gives_up=reader is _native)


def heeds_clobbers(image: KernelImage) -> bool:
    """Whether a kernel before 4.20 leaves a site alone whose registers a call of a plain C function would destroy.

    5800dc5c19f3 (4.19, "Fix spectre-v2 mitigations for paravirt guests") took that out of ``paravirt_patch_call``, in
    stable kernels too, and left it its arguments: it no longer looks at the third, which says what the function
    destroys.
    """
    if _CALLER not in image.symbols:
        return True
    third, bits = ("rdx", 64) if image.pointer_size == 8 else ("ecx", 32)
    code = function_code(image, _CALLER)
    at = 0
    for size in instruction_lengths(code, bits):
        with suppress(PatchError):  # a trap, say: of no interest here
            (insn,) = disassemble(code[at : at + size], at, bits)
            cleared = insn.mnemonic == "xor" and insn.reads == insn.writes
            if third in insn.reads | insn.writes:
                return third in insn.reads and not cleared
        at += size
    return False


def _native(image: KernelImage, slot: Slot) -> dict[str, OwnTemplate]:
    """The templates of ``native_patch``."""
    found = {}
    if not PATCH_TABLES.isdisjoint(image.symbols):
        codes = {op: bytes.fromhex(code) for op, code in _FIXED[image.pointer_size].items()}
        found = {op: OwnTemplate(code) for op, code in codes.items()}
    elif slot.symbol == "paravirt_ops":
        # 2.6.23's own: a conversion becomes nothing at all, since argument and result are in one register.
        found = {op: OwnTemplate(b"") for op in _CONVERSIONS}
    for symbol in image.symbols:
        if symbol.startswith("start_") and (end := f"end_{symbol.removeprefix('start_')}") in image.symbols:
            code = _between(image, symbol, end)
            if code is not None:
                # To 2.6.23 start_irq_disable; then start_pv_irq_ops_irq_disable; from 4.20 on start_irq_irq_disable.
                op = symbol.removeprefix("start_").rpartition("_ops_")[2]
                op = op.partition("_")[2] if slot.symbol == "pv_ops" else op
                found[op.removeprefix("_")] = OwnTemplate(code)
    # pv_is_native_spin_unlock and its like: the code is native's, whoever patches.
    needed = {op: image.symbols.get(thunk, -1) for op, thunk in _NATIVE_ONLY.items()}
    return {op: attrs.evolve(template, needs=needed.get(op, 0)) for op, template in found.items()}


def _lguest(image: KernelImage, _slot: Slot) -> dict[str, OwnTemplate]:
    """The templates of ``lguest_patch``: ``lgstart_cli`` to ``lgend_cli``."""
    pairs = ((op, _between(image, f"lgstart_{name}", f"lgend_{name}")) for op, name in _LGUEST.items())
    return {op: OwnTemplate(code) for op, code in pairs if code is not None}


def _xen(image: KernelImage, _slot: Slot) -> dict[str, OwnTemplate]:
    """The templates of ``xen_patch``: the functions that use the event mask at its fixed place, if it has one."""
    found: dict[str, OwnTemplate] = {}
    try:
        # Without vcpu_info at its fixed place the mask's address is not known when the templates are assembled.
        if not switched_on(image, _PLACED):
            return found
    except ImageError:
        return found
    for op in _XEN:
        start = image.symbols.get(f"xen_{op}_direct", 0)
        code = _between(image, f"xen_{op}_direct", f"xen_{op}_direct_end")
        if code is not None:
            relocation = image.symbols.get(f"xen_{op}_direct_reloc", 0) - start
            # Four bytes of it must lie within the template, whatever the symbol says.
            inside = 0 < relocation <= len(code) - 4
            found[op] = OwnTemplate(code, start, relocation if inside else None)
    return found


def _default(_image: KernelImage, _slot: Slot) -> dict[str, OwnTemplate]:
    """No templates: the slot holds the default rule itself."""
    return {}


def _between(image: KernelImage, start: str, end: str) -> bytes | None:
    """The bytes between two symbols; None where they are no such pair."""
    first, last = image.symbols.get(start, 0), image.symbols.get(end, 0)
    # Two symbols of such names may stand anywhere; a template is a few instructions.
    if not first or not 0 < last - first <= LONGEST_TEMPLATE:
        return None
    try:
        return image.read(first, last - first)
    except ImageError:
        return None


_READERS: Final = {
    "native_patch": _native,
    "lguest_patch": _lguest,
    "xen_patch": _xen,
    "paravirt_patch_default": _default,
}

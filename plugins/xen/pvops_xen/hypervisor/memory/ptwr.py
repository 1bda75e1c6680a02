"""Writable page tables: plain stores to a read-only mapped L1 table, carried out with full checks (pv/ro-page-fault.c).

The guest's store faulted; its address is known from the fault, so only the operation and its other operand have to be
read out of the instruction. Here are those that kernels use all the time; ``dry_run`` takes any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from pvops_core.errors import PatchError
from pvops_core.patching.code.disasm import disassemble, instruction_lengths
from pvops_xen.hypervisor.abi import PAGE_MASK, PAGE_SHIFT, VmAssist
from pvops_xen.hypervisor.memory import entries as pte
from pvops_xen.hypervisor.memory import update
from pvops_xen.hypervisor.memory.dryrun import dry_run
from pvops_xen.hypervisor.memory.frames import FrameType
from pvops_xen.hypervisor.memory.walk import guest_l1e
from pvops_xen.hypervisor.processor.opcodes import fetch

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

_MEMORY: Final = re.compile(r"^(byte|word|dword|qword) ptr .*\]$")
# An immediate, a general register, or nothing.
_SOURCE: Final = re.compile(
    r"(0x[0-9a-f]+|[0-9]|[re]?[abcd]x|[abcd][lh]|[re]?(si|di|bp|sp)|(si|di|bp|sp)l|r\d+[dwb]?)?"
)
_ENTRY: Final = 8
_SIZES: Final = {"byte": 1, "word": 2, "dword": 4, "qword": 8}
_CF, _ZF, _SF, _OF, _PF, _AF = 1, 1 << 6, 1 << 7, 1 << 11, 1 << 2, 1 << 4
_ARITHMETIC: Final = _CF | _ZF | _SF | _OF | _PF | _AF


def emulate_write(hv: Hypervisor, cpu: Vcpu, address: int) -> bool:
    """ptwr_emulated_update(): the faulting store, if to a read-only L1 table; False if the guest must get the fault."""
    mfn = _table_at(hv, cpu, address)
    if mfn is None:
        return False
    store = _decode(fetch(hv, cpu, cpu.rip), hv.abi.bits)
    known = store is not None and store.mnemonic in _OPERATIONS and _SOURCE.fullmatch(store.source)
    done = _perform(hv, cpu, mfn << PAGE_SHIFT | address & PAGE_MASK, store) if store and known else None
    if done is None:
        return dry_run(hv, cpu, address, mfn)
    return _counted(hv, done=done)


def emulate_store(hv: Hypervisor, cpu: Vcpu, address: int, value: int) -> bool:
    """The same for the store of an aligned entry by code that is no instruction of the guest's."""
    mfn = _table_at(hv, cpu, address) if hv.domain.assisted(VmAssist.WRITABLE_PAGETABLES) else None
    if mfn is None:
        return False
    return _counted(hv, done=_commit(hv, mfn << PAGE_SHIFT | address & PAGE_MASK, _ENTRY, value))


def _counted(hv: Hypervisor, *, done: bool) -> bool:
    hv.stats.page_table_updates += done
    hv.stats.traps["emulated_pte_write"] += done
    return done


def _table_at(hv: Hypervisor, cpu: Vcpu, address: int) -> int | None:
    """Frame of the guest's L1 table that is mapped read-only at an address; None where there is none such."""
    # Through the linear page tables, as Xen finds it: the guest's own walk has faulted.
    place = guest_l1e(hv, cpu.index, address)
    if place is None:
        return None
    mapping = update.read_entry(hv.validator, place)
    mfn = pte.frame_of(mapping)
    # A table mapped writable would have been written by the processor itself.
    if mapping & (pte.P | pte.RW) != pte.P or not hv.frames.is_guests(mfn) or hv.frames.in_use_as(mfn) != FrameType.L1:
        return None
    return mfn


class _Store:
    """An instruction that writes memory: its name, operand size, the other operand, and its length."""

    __slots__ = ("length", "mnemonic", "size", "source")

    def __init__(self, mnemonic: str, size: int, source: str, length: int) -> None:
        self.mnemonic = mnemonic
        self.size = size
        self.source = source
        self.length = length


# A kernel that maps its memory entry by entry executes the same few stores some hundred thousand times.
@lru_cache(maxsize=256)
def _decode(code: bytes, bits: int) -> _Store | None:
    lengths = instruction_lengths(code, bits)
    if not lengths:
        return None
    try:
        instruction = disassemble(code[: lengths[0]], 0, bits)[0]
    except PatchError:
        return None
    operands = [part.strip() for part in _operand_text(instruction.text, instruction.mnemonic).split(", ")]
    # xchg takes its operands in either order; the memory operand is the one that faulted.
    if instruction.mnemonic == "xchg" and len(operands) == 2 and not _MEMORY.match(operands[0]):
        operands.reverse()
    found = _MEMORY.match(operands[0]) if operands else None
    if found is None:
        return None
    source = operands[1] if len(operands) > 1 else ""
    return _Store(instruction.mnemonic, _SIZES[found[1]], source, lengths[0])


def _operand_text(text: str, mnemonic: str) -> str:
    return text.split(mnemonic, 1)[1].strip()


def _value(cpu: Vcpu, source: str, size: int) -> int:
    """A register or immediate operand."""
    mask = (1 << 8 * size) - 1
    if not source:
        # inc, dec, not and neg have no second operand.
        return 1
    try:
        return int(source, 16) & mask
    except ValueError:
        pass
    if source in {"ah", "bh", "ch", "dh"}:
        return cpu.get(f"r{source[0]}x") >> 8 & 0xFF
    return cpu.get(_full_name(source)) & mask


def _full_name(name: str) -> str:
    if re.fullmatch(r"r\d+[dwb]?", name):
        return name.rstrip("dwb")
    if name in {"al", "bl", "cl", "dl"}:
        return f"r{name[0]}x"
    if name in {"sil", "dil", "bpl", "spl"}:
        return f"r{name[:2]}"
    return f"r{name[-2:]}"


def _set_register(cpu: Vcpu, source: str, size: int, value: int) -> None:
    """Write a register operand; a 32-bit write clears the upper half, smaller ones keep the rest."""
    if source in {"ah", "bh", "ch", "dh"}:
        name = f"r{source[0]}x"
        cpu.set(name, cpu.get(name) & ~0xFF00 | value << 8)
        return
    name = _full_name(source)
    # A 32-bit write clears the upper half (SDM volume 1, 3.4.1.1).
    if size >= 4:
        cpu.set(name, value)
    else:
        mask = (1 << 8 * size) - 1
        cpu.set(name, cpu.get(name) & ~mask | value & mask)


class _Effect(NamedTuple):
    """What an instruction does: the new value of memory, a register that is written, and the flags."""

    new: int
    flags: int
    register: str = ""
    value: int = 0


def _mov(cpu: Vcpu, store: _Store, old: int, operand: int) -> _Effect:
    del store, old
    return _Effect(operand, cpu.rflags)


def _xchg(cpu: Vcpu, store: _Store, old: int, operand: int) -> _Effect:
    return _Effect(operand, cpu.rflags, store.source, old)


def _cmpxchg(cpu: Vcpu, store: _Store, old: int, operand: int) -> _Effect:
    expected = cpu.get("rax") & (1 << 8 * store.size) - 1
    # cmpxchg compares with the accumulator, and writes the old value back where they differ (SDM volume 2, CMPXCHG).
    flags = _compare_flags(cpu.rflags, expected, old, store.size)
    if old == expected:
        return _Effect(operand, flags)
    return _Effect(old, flags, {1: "al", 2: "ax", 4: "eax", 8: "rax"}[store.size], old)


def _logic(compute: Callable[[int, int], int]) -> _Operation:
    def effect(cpu: Vcpu, store: _Store, old: int, operand: int) -> _Effect:
        new = compute(old, operand)
        return _Effect(new, _logic_flags(cpu.rflags, new, store.size))

    return effect


def _bit(compute: Callable[[int, int], int]) -> _Operation:
    def effect(cpu: Vcpu, store: _Store, old: int, operand: int) -> _Effect | None:
        # With a register bit strings reach beyond their operand (SDM volume 2, BT), so this store is none of this
        # entry.
        if not _is_immediate(store.source) and operand >= 8 * store.size:
            return None  # an index beyond the operand moves the address
        bit = 1 << operand % (8 * store.size)
        flags = cpu.rflags | _CF if old & bit else cpu.rflags & ~_CF
        return _Effect(compute(old, bit), flags)

    return effect


_Operation = Callable[["Vcpu", _Store, int, int], "_Effect | None"]
_OPERATIONS: Final[dict[str, _Operation]] = {
    "mov": _mov,
    "xchg": _xchg,
    "cmpxchg": _cmpxchg,
    "and": _logic(lambda old, operand: old & operand),
    "or": _logic(lambda old, operand: old | operand),
    "xor": _logic(lambda old, operand: old ^ operand),
    "bts": _bit(lambda old, bit: old | bit),
    "btr": _bit(lambda old, bit: old & ~bit),
    "btc": _bit(lambda old, bit: old ^ bit),
}


def _perform(hv: Hypervisor, cpu: Vcpu, target: int, store: _Store) -> bool | None:
    """Read, compute, write back with checks, then the instruction's other effects and RIP; None: it is out of reach."""
    # ``ptwr_emulated_update``: an entry is 8 bytes, and only whole ones are checked.
    if target % store.size:
        hv.log(f"ptwr_emulate: unaligned ptwr access ({store.size})")
        return False
    operation = _OPERATIONS[store.mnemonic]
    operand = _value(cpu, store.source, store.size)
    old = int.from_bytes(hv.memory.read(target, store.size), "little")
    effect = operation(cpu, store, old, operand)
    if effect is None:
        return None
    # Nothing of the instruction is done before its store is allowed.
    if not _commit(hv, target, store.size, effect.new):
        return False
    if effect.register:
        # Before RIP: an interrupt may be taken as soon as the store counts as done.
        _set_register(cpu, effect.register, store.size, effect.value)
    cpu.rflags = effect.flags
    cpu.rip += store.length
    return True


def _is_immediate(source: str) -> bool:
    return source.startswith("0x")


def _commit(hv: Hypervisor, target: int, size: int, value: int) -> bool:
    """Put a value into the entry that holds it, and have the whole entry checked."""
    word = target & ~7
    shift = 8 * (target & 7)
    mask = ((1 << 8 * size) - 1) << shift
    entry = hv.memory.u64(word)
    new = entry & ~mask | value << shift
    error = update.modify(hv.validator, word, new)
    if error and hv.abi.bits == 32 and size == 4 and target & 4 and new & pte.P:
        # A PAE guest writes an entry in halves. If the upper one comes first, the two halves do not fit together; the
        # entry is then taken as not present until the lower one follows.
        error = update.modify(hv.validator, word, new & ~pte.P)
    if error:
        hv.log(f"ptwr_emulate: could not get_page_from_l1e() {error}")
    return not error


def _parity(value: int) -> int:
    return 0 if (value & 0xFF).bit_count() & 1 else _PF


def _result_flags(value: int, size: int) -> int:
    sign = _SF if value >> (8 * size - 1) & 1 else 0
    return (0 if value else _ZF) | sign | _parity(value)


def _logic_flags(flags: int, value: int, size: int) -> int:
    return flags & ~_ARITHMETIC | _result_flags(value, size)


def _compare_flags(flags: int, left: int, right: int, size: int) -> int:
    """Flags of ``left - right``."""
    mask = (1 << 8 * size) - 1
    result = left - right & mask
    top = 1 << (8 * size - 1)
    # Operands of different signs, and a result of the other sign than the first
    overflow = _OF if (left ^ right) & (left ^ result) & top else 0
    carry = _CF if left < right else 0
    adjust = _AF if (left ^ right ^ result) & 0x10 else 0  # a borrow from bit 4: the three differ there
    return flags & ~_ARITHMETIC | _result_flags(result, size) | overflow | carry | adjust

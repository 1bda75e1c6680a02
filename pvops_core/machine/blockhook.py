"""The one callback that runs at every block of guest code, made without numba.

A numba function is called through a wrapper that looks after Python exceptions; at a hundred million calls a boot that
costs more than the three instructions that are wanted. The rest of ``native`` is not called often enough to matter.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir

from pvops_core.machine.registers import FLAG_IF
from pvops_core.machine.state import Slot

_NAME = "block"
_VOID, _I32, _I64 = ir.VoidType(), ir.IntType(32), ir.IntType(64)
Value = Any  # llvmlite has no types


def compile_block() -> tuple[int, object]:
    """Compile the callback: ``void block(uc_engine *, uint64_t address, uint32_t size, int64_t *words)``.

    Returns:
        Its address, and what keeps the code in memory.
    """
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(opt=2)
    module = binding.parse_assembly(str(_module()))
    module.verify()
    engine = binding.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return engine.get_function_address(_NAME), engine


def _module() -> ir.Module:
    """Count the block; when the budget is used up and nothing speaks for patience, uncount it and stop the engine.

    The block does not run then. Patience is for a slice that was to end for an interrupt's sake, where the guest has
    interrupts off: it goes on to the first block with interrupts on.
    """
    module = ir.Module(name=_NAME)
    kind = ir.FunctionType(_VOID, [_I64, _I64, _I32, _I64.as_pointer()])
    function = ir.Function(module, kind, name=_NAME)
    words = function.args[3]
    builder = ir.IRBuilder(function.append_basic_block())
    blocks = builder.load(_place(builder, words, Slot.BLOCKS))
    left = builder.sub(builder.load(_place(builder, words, Slot.BUDGET)), _I64(1))
    builder.store(left, _place(builder, words, Slot.BUDGET))
    builder.store(builder.add(blocks, _I64(1)), _place(builder, words, Slot.BLOCKS))
    with builder.if_then(builder.icmp_signed("<", left, _I64(0)), likely=False):
        patience = builder.load(_place(builder, words, Slot.PATIENCE))
        with builder.if_then(builder.icmp_signed(">", patience, _I64(0))):
            _read_flags(builder, words)
            flags = builder.load(_place(builder, words, Slot.FLAGS))
            with builder.if_then(builder.icmp_signed("==", builder.and_(flags, _I64(FLAG_IF)), _I64(0))):
                builder.store(builder.sub(patience, _I64(1)), _place(builder, words, Slot.PATIENCE))
                builder.ret_void()
        builder.store(blocks, _place(builder, words, Slot.BLOCKS))
        builder.store(_I64(1), _place(builder, words, Slot.EXPIRED))
        stop = builder.load(_place(builder, words, Slot.EMU_STOP))
        stopper = builder.inttoptr(stop, ir.FunctionType(_I32, [_I64]).as_pointer())
        builder.call(stopper, [builder.load(_place(builder, words, Slot.ENGINE))])
    builder.ret_void()
    return module


def _read_flags(builder: Value, words: Value) -> None:
    """Call uc_reg_read for the flags; only the bits of their conditions may be stale inside a slice."""
    kind = ir.FunctionType(_I32, [_I64, _I32, _I64.as_pointer()])
    reader = builder.inttoptr(builder.load(_place(builder, words, Slot.READ_REGISTER)), kind.as_pointer())
    engine = builder.load(_place(builder, words, Slot.ENGINE))
    number = builder.trunc(builder.load(_place(builder, words, Slot.FLAGS_ID)), _I32)
    builder.call(reader, [engine, number, _place(builder, words, Slot.FLAGS)])


def _place(builder: Value, words: Value, slot: Slot) -> Value:
    return builder.gep(words, [_I64(int(slot))])

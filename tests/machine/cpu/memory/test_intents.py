"""Which instructions read a place and write it back, by their bytes: as the disassembler has it."""

from __future__ import annotations

import re

import capstone
import pytest
from capstone import x86_const
from hypothesis import given, settings
from hypothesis import strategies as st

from pvops_core.machine.cpu.memory.intents import changes_memory
from pvops_core.testing.assembly import assemble

CHANGING = re.compile(
    "adc|add|and|or|sbb|sub|xor|inc|dec|neg|not|rol|ror|rcl|rcr|shl|sal|shr|sar|shld|shrd|bt[crs]|xchg|xadd"
    "|cmpxchg|cmpxchg8b|cmpxchg16b"
)


@given(st.binary(min_size=15, max_size=15), st.booleans())
@settings(max_examples=3_000)
def test_the_disassembler_agrees(code: bytes, long: bool) -> None:  # noqa: FBT001 - hypothesis gives it
    reader = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64 if long else capstone.CS_MODE_32)
    reader.detail = True
    found = next(reader.disasm(code, 0, 1), None)
    if found is None or found.prefix[0] == 0xF0:
        return
    name = found.mnemonic.split()[-1]
    memory = any(operand.type == x86_const.X86_OP_MEM for operand in found.operands)
    destination = memory and found.operands[0].type == x86_const.X86_OP_MEM
    changing = CHANGING.fullmatch(name) is not None and (destination or (memory and name == "xchg"))
    assert changes_memory(code, long=long) == changing, (found.mnemonic, found.op_str)


@pytest.mark.parametrize("text", [
    "lock add dword ptr [esi], 1", "xchg [esi], al", "lock cmpxchg8b [esi]", "bts [esi], eax", "shld [esi], eax, cl",
    "neg byte ptr gs:[esi]", "xadd [esi], cx", "inc word ptr [esi]", "sar dword ptr [esi], 3",
])  # fmt: skip
def test_changing(text: str) -> None:
    assert changes_memory(assemble(text, 32), long=False)
    assert changes_memory(assemble(text.replace("esi", "rsi"), 64), long=True)


@pytest.mark.parametrize("text", [
    "cmp [esi], eax", "test [esi], eax", "mov [esi], eax", "mov eax, [esi]", "add eax, [esi]", "push dword ptr [esi]",
    "call [esi]", "bt [esi], eax", "mul dword ptr [esi]", "add eax, ebx", "sete byte ptr [esi]", "nop",
])  # fmt: skip
def test_not_changing(text: str) -> None:
    assert not changes_memory(assemble(text, 32), long=False)

"""The engine that machines run on: all that the room asks of the folder that knows it, and the place that chooses it.

Another engine is another folder that has these names; the rest of the room stays as it is. What they must do is said
where they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.machine.unicorn import exitrequest, intercepts, libc
from pvops_core.machine.unicorn.batch import Batch, MixedBatch, MsrBatch, register_id
from pvops_core.machine.unicorn.cpustate import guests as guests_state
from pvops_core.machine.unicorn.cpustate import vetted as vetted_state
from pvops_core.machine.unicorn.engine import (
    BUS_ERRORS,
    CODE_CALLBACK,
    CPUID_CALLBACK,
    ERROR_NAMES,
    HOOK_BLOCK,
    HOOK_CODE,
    HOOK_INTR,
    HOOK_INVALID,
    HOOK_TRANSLATED,
    IN_CALLBACK,
    INSN_CPUID,
    INSN_IN,
    INSN_OUT,
    INSN_RDTSC,
    INSN_RDTSCP,
    INSN_SYSCALL,
    INSN_SYSENTER,
    INTR_CALLBACK,
    INVALID_CALLBACK,
    LOAD_CALLBACK,
    LOOK_CALLBACK,
    OUT_CALLBACK,
    REGISTER_IDS,
    STORE_CALLBACK,
    SYSCALL_CALLBACK,
    Context,
    Engine,
    TableRegister,
    Words,
)
from pvops_core.machine.unicorn.engine import NAME as ENGINE_NAME
from pvops_core.machine.unicorn.intercepts import EXITS, MSR, READ_DR, WRITE_DR
from pvops_core.machine.unicorn.libc import same_bytes
from pvops_core.machine.unicorn.llvm import pauseloops
from pvops_core.machine.unicorn.llvm.allengines import COLUMNS, AllEngines
from pvops_core.machine.unicorn.llvm.guarding import CODE as CODE_SEGMENT
from pvops_core.machine.unicorn.llvm.guarding import DATA as DATA_SEGMENTS
from pvops_core.machine.unicorn.llvm.guarding import GuardWords
from pvops_core.machine.unicorn.llvm.guarding import guards as segment_guards
from pvops_core.machine.unicorn.llvm.native import NativeCallbacks
from pvops_core.machine.unicorn.llvm.native import callbacks as native_callbacks
from pvops_core.machine.unicorn.llvm.piecewise import PieceGuards, Site
from pvops_core.machine.unicorn.llvm.watching import PLACES as WATCHED
from pvops_core.machine.unicorn.llvm.watching import Watch
from pvops_core.machine.unicorn.modeswitch import ModeSwitch, packed_segment
from pvops_core.machine.unicorn.movablehook import MovableHook
from pvops_core.machine.unicorn.probe import (
    HF_ADDSEG,
    HF_CPL,
    HF_CS32,
    HF_CS64,
    HF_INHIBIT_IRQ,
    HF_LMA,
    HF_SS32,
    ContextLayout,
    context_layout,
)
from pvops_core.machine.unicorn.state import BLOCK_NS, CALL_WORDS, StateWord
from pvops_core.machine.unicorn.words import NativeWords
from pvops_core.machine.unicorn.writewatch import WriteWatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pvops_core.machine.unicorn.llvm.spans import Counted, SpanCounter


def count_spans(slots: Sequence[Counted], spans: Sequence[tuple[int, int]]) -> SpanCounter:
    """Count executions of spans of guest text from now on; what does it is compiled then."""
    from pvops_core.machine.unicorn.llvm.spans import SpanCounter  # noqa: PLC0415 - brings the compiler, and is rarely wanted

    return SpanCounter(slots, spans)

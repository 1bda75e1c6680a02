"""Watches every hook of a backend while the whole guest boots: does it keep to its calling convention?"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from pvops_core.backends import chain
from pvops_core.backends.hooks import marked
from pvops_core.guests import builtin_guest
from pvops_core.machine.cpu.registers import GENERAL
from pvops_core.ops import LAYOUTS, Convention, signature
from pvops_core.session import Session
from pvops_core.testing.conformance.finish import finish
from pvops_core.x86 import ARITHMETIC, FLAG_IF

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.machine import Stop, Vcpu
    from pvops_core.ops import Layout, Signature

MEMORY: Final = 4 << 20
ABOUT_IF: Final = frozenset({"irq_enable", "irq_disable", "restore_fl", "safe_halt", "halt"})
IOPL: Final = 0x3000


@attrs.define
class Audit:
    """What was seen.

    Attributes:
        layout: the guest's layout.
        calls: how often each hook of a backend was called.
        faults: by op, what it did that it may not.
        stop: how the boot ended.
    """

    layout: Layout
    calls: Counter[str] = attrs.field(factory=Counter)
    faults: dict[str, list[str]] = attrs.field(factory=dict)
    stop: Stop | None = None

    def watched(self, ops: type) -> type:
        """The same class with every hook watched that is told the vCPU."""
        methods = {}
        for one in marked(ops):
            if one.hook in self.layout and callable(one.value) and self.layout.by_op(one.hook).op.name != "patch":
                methods[one.attribute] = self._watched(one.hook, one.value)
        return type(ops.__name__, (ops,), methods)

    def _watched(self, op: str, function: Callable[..., Any]) -> Callable[..., Any]:
        slot = self.layout.by_op(op)
        how = signature(slot, self.layout.kind)

        @functools.wraps(function)
        def hook(ops: object, *arguments: Any) -> Any:  # noqa: ANN401 - whatever the hook takes and gives
            cpu = arguments[0] if arguments else None
            # A hook may leave out the vCPU, and then there are no registers to look at.
            if slot.op.is_data or cpu is None or not hasattr(cpu, "rip"):
                return function(ops, *arguments)
            before = _registers(cpu, how)
            result = function(ops, *arguments)
            self.calls[op] += 1
            for fault in _broken(cpu, how, before, result):
                found = self.faults.setdefault(op, [])
                if fault not in found:
                    found.append(fault)
            return result

        return hook


def audit(layout: str, backend: Backend, backends: Mapping[str, Backend]) -> Audit:
    """Boot the built-in guest of a layout under watch."""
    found = Audit(LAYOUTS[layout])
    links: Sequence[Backend] = [
        attrs.evolve(link, ops=found.watched(link.ops)) if link.ops else link for link in chain(backend, backends)
    ]
    with Session(builtin_guest(layout), tuple(links), memory=MEMORY) as session:
        found.stop = finish(session)
    return found


def _registers(cpu: Vcpu, how: Signature) -> dict[str, int]:
    names = (*GENERAL[how.kind.bits], "rsp", "rip", "rflags")
    return {name: cpu.get(name) for name in names}


def _broken(cpu: Vcpu, how: Signature, before: Mapping[str, int], result: object) -> list[str]:
    op = how.op
    if op.convention is Convention.JUMP:
        return []
    found = _result(how, result)
    now = _registers(cpu, how)
    if now["rip"] != before["rip"]:
        return found  # an interrupt was delivered, or the guest was sent elsewhere
    lost = how.clobbers | set(how.result)
    for name, value in before.items():
        mask = -1
        if name == "rflags":
            mask &= ~(
                ARITHMETIC | (FLAG_IF if op.name in ABOUT_IF else 0) | (IOPL if op.name == "set_iopl_mask" else 0)
            )
        if name not in lost and (value ^ now[name]) & mask:
            found.append(f"{name} was {value:#x} and is {now[name]:#x}")
    return found


def _result(how: Signature, result: object) -> list[str]:
    if not how.result:
        return []
    if not isinstance(result, int):
        return [f"gives {result!r}, not a number"]
    if not -(1 << how.result_bits - 1) <= result < 1 << how.result_bits:
        return [f"gives {result:#x}, which has more than {how.result_bits} bits"]
    return []

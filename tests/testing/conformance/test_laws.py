"""A bug of each kind in every op, where the op stands: the conformance suite's laws must see it.

The bugs are made, not written: an op is switched to something that calls what was there and then goes wrong in one way.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

from pvops_core.backends import load_backends
from pvops_core.ops import LAYOUTS
from pvops_core.switchboard import Form
from pvops_core.testing.conformance import cases
from pvops_core.testing.conformance.fixture import Fixture
from pvops_core.testing.conformance.laws import LAWS
from pvops_core.testing.fixtures.cells import MachineCell, capabilities
from pvops_core.testing.fixtures.keptmachine import KeptMachine

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.switchboard import Implementation
    from pvops_core.testing.conformance.laws import Law

assert cases.LAW_MODULES, "importing it makes the laws known"
MOST_OPS: Final = 60
"""Every layout has more that some law speaks of."""

NO_EFFECT = {"io_delay", "wbinvd", "pgd_alloc", "update_io_bitmap", "invalidate_io_bitmap", "vcpu_is_preempted"}
"""Nothing can be seen of what they do on bare metal, or nothing is what they do."""
BY_GUEST_CODE = {"pgd_free", "alloc_pd_clone"}
"""Called by functions of the guest's, which save the register themselves; the audit of a whole boot sees it."""
ANY_TIME = {"get_wallclock", "set_wallclock"}
"""Any time may be right, and an error may be."""
HIDDEN_BY_XEN = {"load_gdt", "load_idt", "write_cr4", "store_tr", "mmu_lazy_mode_enter", "alloc_pmd", "alloc_pud"}
"""The hypervisor has what the guest was started with, a batch that is not begun costs time alone, and upper tables are
made read-only with the address space at the latest."""
WITHOUT_A_WAITER = {"lock_wait", "lock_kick", "pgd_free"}
UNSEEN: Final = {
    "native": {
        "nothing": NO_EFFECT,
        "register": BY_GUEST_CODE,
        "flag": BY_GUEST_CODE,
        "result": ANY_TIME,
    },
    "xen": {
        "nothing": NO_EFFECT | HIDDEN_BY_XEN | WITHOUT_A_WAITER,
        "register": BY_GUEST_CODE,
        "flag": BY_GUEST_CODE,
        "result": ANY_TIME | {"store_tr"},
    },
}
"""By base and kind of bug, the ops in which the laws need not see it, and so all that they may miss."""


def planted(kind: str, sound: Implementation, register: str) -> Any:  # noqa: ANN401 - a function made to measure
    """What an op is switched to: what was there, with a bug."""

    def bug(cpu: Vcpu, *values: int) -> int:
        result = 0
        if kind != "nothing" and sound.function is not None:
            result = sound.function(cpu, *values) or 0
        if kind == "register":
            cpu.set(register, cpu.get(register) ^ 1)
        if kind == "flag":
            cpu.rflags |= 0x400
        return ~result if kind == "result" else result

    names = ("cpu", *sound.arguments)
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    bug.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return bug


class Field:
    """Machines of one backend and layout, one for each place in the boot that a law is tried at."""

    def __init__(self, backend: str, layout: str) -> None:
        self.backends = load_backends().backends
        self.backend, self.layout = self.backends[backend], LAYOUTS[layout]
        self.has = capabilities(self.backend, self.backends)
        self._kept: dict[tuple[int, str], KeptMachine] = {}

    def laws(self) -> Iterator[tuple[Law, str, KeptMachine]]:
        for law in LAWS:
            if law.needs - self.has:
                continue
            place = law.vcpus, law.point
            for op in law.ops:
                if law.applies(op, self.layout) and op != "patch":
                    if place not in self._kept:
                        cell = MachineCell(self.backend.name, self.layout.name, *place)
                        self._kept[place] = KeptMachine(cell, self.backends, 0)
                    yield law, op, self._kept[place]

    def seen(self, law: Law, op: str, kept: KeptMachine, kind: str) -> bool | None:
        """Whether a law sees a bug of an op; None where it says nothing."""
        kept.restore()
        board = kept.session.switchboard
        register = "rbx" if self.layout.kind.bits == 64 else "ebx"
        board.switch(op, planted(kind, board.implementation(op), register), by="test")
        try:
            law.check(Fixture(kept, self.backend, self.has), op)
        except pytest.skip.Exception:
            return None
        except Exception:  # noqa: BLE001 - a law may see it by any error
            return True
        finally:
            kept.restore()
        return False

    def close(self) -> None:
        for kept in self._kept.values():
            kept.session.close()


def kinds(field: Field, op: str, sound: Implementation) -> list[str]:
    found = ["register", "flag"]
    if field.layout.by_op(op).op.result is not None:
        found.append("result")
    return found if sound.form is Form.NOP else [*found, "nothing"]


@pytest.mark.parametrize(
    ("backend", "layout"),
    [("native", "6.1-64"), ("native", "2.6.24-pae"), ("native", "2.6.23-lapic"), ("xen", "6.1-64")],
)
def test_a_bug_of_each_kind_in_each_op_is_seen(backend: str, layout: str) -> None:
    field = Field(backend, layout)
    seen: dict[tuple[str, str], bool] = {}
    try:
        for law, op, kept in field.laws():
            sound = kept.session.switchboard.implementation(op)
            if sound.form is Form.EMPTY:
                continue
            for kind in kinds(field, op, sound):
                if not seen.get((kind, op)):
                    found = field.seen(law, op, kept, kind)
                    if found is not None:
                        seen[kind, op] = found
    finally:
        field.close()
    assert len({op for _kind, op in seen}) > MOST_OPS
    missed = {(kind, op) for (kind, op), found in seen.items() if not found}
    assert not {(kind, op) for kind, op in missed if op not in UNSEEN[backend][kind]}
    assert len(missed) <= len(seen) // 10

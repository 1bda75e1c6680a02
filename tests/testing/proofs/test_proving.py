"""Hooks are held against a small kernel's own functions: what is equal, and each kind of thing that can differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import pytest

from pvops_core.backends import load_backends
from pvops_core.backends.proof import NOTES, Justified, ProofNotes
from pvops_core.guest.own import OwnFunction
from pvops_core.guests import Kernel
from pvops_core.machine import GuestFault, Vcpu
from pvops_core.ops import LAYOUTS
from pvops_core.session import Session
from pvops_core.switchboard.implementation import of_callable
from pvops_core.testing.proofs import proving
from pvops_core.testing.proofs.arrivals import picks
from pvops_core.testing.proofs.proving import Prover
from tests.session.selfpatching import CELL, SelfPatching

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.switchboard.implementation import Implementation
    from pvops_core.testing.images import ElfBuilder
    from pvops_core.testing.proofs.proof import OpProof, Proof

OWN = {
    "native_read_cr2": "0f20d0 c3",  # mov rax, cr2
    "native_write_cr2": "0f22d7 c3",
    "native_save_fl": "9c 58 c3",
    "native_irq_disable": "fa c3",
    "native_set_pte": "488937 c3",  # mov [rdi], rsi
    "native_flush_tlb_one_user": "0f013f c3",  # invlpg [rdi]
    "native_flush_tlb_user": "0f20d8 0f22d8 c3",  # through rax: a call of C may lose it
    "native_read_cr3": "0f20d8 c3",
}
OPS = ("mmu.read_cr2", "mmu.write_cr2", "irq.save_fl", "irq.irq_disable", "mmu.set_pte", "mmu.flush_tlb_one_user")
MORE = ("mmu.flush_tlb_user", "mmu.read_cr3")
ARGUMENTS = bytes.fromhex("48c7c7") + CELL.to_bytes(4, "little") + bytes.fromhex("be67450000")  # rdi, esi
Hooks = Mapping[str, Callable[..., Any]]


class Settings(TypedDict, total=False):
    wanted: frozenset[str]
    states: int
    seed: int
    left: Callable[[], float]


class Working(SelfPatching):
    """Its functions do what Linux's of these names do."""

    def builder(self) -> ElfBuilder:
        builder = super().builder()
        text = next(section for section in builder._sections if section.name == ".text")
        data = bytearray(text.data)
        for name, code in OWN.items():
            at = self.addresses[name] - text.address
            data[at : at + len(bytes.fromhex(code))] = bytes.fromhex(code)
        text.data = bytes(data)
        return builder


@pytest.fixture(scope="module")
def image() -> KernelImage:
    """Calls each op twice, and powers off."""
    paths = [*OPS, *MORE]
    sites = [piece for number in range(len(paths)) for piece in (ARGUMENTS, number)]
    return Working.of(*paths).build(body=(*sites, *sites))


SOUND: Hooks = {
    "read_cr2": lambda cpu: cpu.cr2,
    "write_cr2": lambda cpu, cr2: cpu.insn.mov_to_cr(2, cr2),
    "save_fl": lambda cpu: cpu.insn.pushf(),
    "irq_disable": lambda cpu: cpu.insn.cli(),
    "set_pte": lambda cpu, ptep, pteval: cpu.set_u64(ptep, pteval),
    "flush_tlb_one_user": lambda cpu, addr: cpu.insn.invlpg(addr),
    "flush_tlb_user": lambda cpu: cpu.insn.mov_to_cr(3, cpu.cr3),
    "read_cr3": lambda cpu: cpu.cr3,
}


def prove(image: KernelImage, hooks: Hooks, notes: ProofNotes = NOTES, **settings: Unpack[Settings]) -> Proof:
    def offer(_session: Session, op: str) -> Implementation | None:
        return of_callable(op, hooks[op], f"mine.{op}") if op in hooks else None

    backends = load_backends().backends
    make = partial(Session, Kernel(image), (backends["native"],), memory=32 << 20)
    return Prover(make=make, offer=offer, notes=notes, **settings).prove()


def of(proof: Proof, op: str) -> OpProof:
    return next(each for each in proof.ops if each.op == op)


def test_sound_hooks_are_equal(image: KernelImage) -> None:
    proof = prove(image, SOUND)
    assert {each.op for each in proof.ops if each.states} == SOUND.keys()
    for op in SOUND:
        found = of(proof, op)
        assert (found.calls, found.states, found.equal, found.unexplained) == (2, 2, 2, 0), (op, found.examples)
    assert proof.end.startswith("poweroff")
    assert proof.unexplained == 0


def other_register(cpu: Vcpu) -> int:
    cpu.set("rbx", 5)
    return cpu.cr2


def direction(cpu: Vcpu) -> None:
    cpu.insn.cli()
    cpu.rflags |= 1 << 10


def beside(cpu: Vcpu, ptep: int, pteval: int) -> None:
    cpu.set_u64(ptep, pteval)
    cpu.set_u64(ptep + 8, 1)


def faulting(_cpu: Vcpu) -> int:
    raise GuestFault("", vector=13, error_code=0)


@pytest.mark.parametrize(
    ("op", "hook", "kind"),
    [
        ("read_cr2", lambda cpu: cpu.cr2 + 1, "result"),
        ("read_cr2", other_register, "registers"),
        ("write_cr2", lambda _cpu: None, "registers"),
        ("irq_disable", direction, "flags"),
        ("set_pte", lambda _cpu: None, "memory"),
        ("set_pte", beside, "memory"),
        ("flush_tlb_one_user", lambda _cpu: None, "flushes"),
        ("flush_tlb_one_user", lambda cpu, addr: cpu.insn.invlpg(addr + 0x1000), "flushes"),
        ("flush_tlb_one_user", lambda cpu: cpu.flush_tlb(), "flushes"),
        ("flush_tlb_user", lambda _cpu: None, "flushes"),
        ("read_cr3", lambda cpu: cpu.insn.mov_to_cr(3, cpu.cr3) or cpu.cr3, "flushes"),
        ("read_cr3", faulting, "end"),
    ],
)
def test_what_a_hook_does_otherwise_is_found(image: KernelImage, op: str, hook: Callable[..., Any], kind: str) -> None:
    proof = prove(image, {**SOUND, op: hook}, wanted=frozenset({op}))
    (found,) = proof.ops
    assert found.differing == found.unexplained >= 1  # a second call may find all as it is to be
    assert dict(found.kinds) == {kind: found.differing}
    example = found.examples[0]
    assert example.caller
    assert all(each.kernel != each.hook for each in example.differences)


def leaving(_cpu: Vcpu) -> int:
    raise OwnFunction("generations")


def test_calls_that_are_left_to_the_kernel_are_counted(image: KernelImage) -> None:
    found = of(prove(image, {"read_cr3": leaving}), "read_cr3")
    assert (dict(found.passed), found.equal, found.unexplained) == ({"generations": 2}, 0, 0)


def broken(_cpu: Vcpu) -> int:
    raise LookupError("no such luck")


def test_a_hook_that_fails_is_lost_and_unexplained(image: KernelImage) -> None:
    found = of(prove(image, {"read_cr3": broken}), "read_cr3")
    assert found.unexplained == 2
    (reason,) = found.lost
    assert "no such luck" in reason


def hanging(_cpu: Vcpu) -> int:
    while True:
        pass


def test_a_hook_that_never_comes_back_is_lost(image: KernelImage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "SECONDS", 0.3)
    proof = prove(image, {**SOUND, "read_cr3": hanging})
    (reason,) = of(proof, "read_cr3").lost
    assert "it has not answered in 0.3 s" in reason
    assert of(proof, "read_cr2").equal == 2
    assert proof.whole


def test_time_that_is_up_ends_a_proof_with_what_it_has_found() -> None:
    endless = Working.of("mmu.read_cr2").build(body=(0, bytes.fromhex("ebfe")))
    looks = iter((2.0, 99.0, 99.0))
    proof = prove(endless, SOUND, left=lambda: next(looks, 1.0))
    assert (proof.whole, proof.end.partition(" ")[0]) == (False, "timeout")
    assert of(proof, "read_cr2").equal == 1


def test_a_state_that_is_broken_off_for_lack_of_time_is_not_counted(image: KernelImage) -> None:
    looks = iter((99.0, 99.0, 0.3))
    proof = prove(image, {**SOUND, "read_cr2": hanging}, left=lambda: next(looks, -1.0))
    assert (proof.states, proof.unexplained, proof.whole) == (0, 0, False)
    assert proof.end.startswith("timeout")
    assert not of(proof, "read_cr2").own


def test_trials_leave_no_trace(image: KernelImage) -> None:
    """Memory and counts at the end of the boot in which calls were tried are those of the boot in which none was."""
    backends, sessions = load_backends().backends, list[Session]()

    def make() -> Session:
        sessions.append(Session(Kernel(image), (backends["native"],), memory=32 << 20))
        return sessions[-1]

    def offer(_session: Session, op: str) -> Implementation | None:
        return of_callable(op, SOUND[op]) if op in SOUND else None

    assert Prover(make=make, offer=offer, notes=NOTES).prove().states == 2 * len(SOUND)
    counted, tried = (session.machine for session in sessions)
    assert counted.counts == tried.counts
    assert counted.memory.read(0, 32 << 20) == tried.memory.read(0, 32 << 20)


def test_what_is_justified_is_not_tried_and_told(image: KernelImage) -> None:
    notes = ProofNotes(justified={"read_cr3": Justified("it waits", "native_read_cr3")})
    found = of(prove(image, SOUND, notes=notes), "read_cr3")
    assert (found.states, found.unexplained, found.why_not) == (0, 0, "it waits")


def test_scratch_is_left_out(image: KernelImage) -> None:
    hooks = {"set_pte": lambda _cpu: None}
    (place,) = {each.what for each in of(prove(image, hooks), "set_pte").examples[0].differences}
    variable = place.partition(" ")[0]
    assert of(prove(image, hooks, notes=ProofNotes(scratch={variable: "a test's"})), "set_pte").equal == 2


def test_a_seed_decides_which_calls_are_tried(image: KernelImage) -> None:
    counts = {"read_cr2": 1000, "write_cr2": 3, "save_fl": 0}
    first, again, other = (picks(counts, 20, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert [len(first[op]) for op in counts] == [20, 3, 0]
    assert max(first["read_cr2"]) < 1000
    found = of(prove(image, {"read_cr2": lambda _cpu: 9}, states=1, seed=4), "read_cr2")
    assert {example.number for example in found.examples} == picks({"read_cr2": 2}, 1, 4)["read_cr2"]


def test_an_op_that_nobody_calls_says_so(image: KernelImage) -> None:
    found = of(prove(image, {"write_cr4": lambda _cpu: None}), "write_cr4")
    assert (found.why_not, found.states) == ("the boot does not call it", 0)


def test_layouts_have_what_the_test_names() -> None:
    assert all(LAYOUTS["6.1-64"].by_path(path) for path in (*OPS, *MORE))

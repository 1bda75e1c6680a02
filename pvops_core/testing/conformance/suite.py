"""The suite's one entry class. An author may derive from it to add tests; running it as it is takes no code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import attrs
import pytest

from pvops_core.backends import chain
from pvops_core.errors import MachineError, PvopsError, SwitchError, UsageError
from pvops_core.guests import builtin_guest
from pvops_core.ops import Convention
from pvops_core.patching.code.template import references
from pvops_core.patching.patchlets import usual_length
from pvops_core.session import Session
from pvops_core.switchboard import Form
from pvops_core.testing.booted import find_image
from pvops_core.testing.conformance.audit import Audit, audit
from pvops_core.testing.conformance.broken import note, told
from pvops_core.testing.conformance.finish import finish
from pvops_core.testing.conformance.fixture import TABLE, Fixture
from pvops_core.testing.conformance.late import LateMachine, must_boot
from pvops_core.testing.conformance.memory import USER
from pvops_core.testing.equivalence import bench_of, check_equivalence
from pvops_core.testing.fixtures.cells import capabilities
from pvops_core.testing.fixtures.keptmachine import MEMORY
from pvops_core.testing.plugin import loaded_backends
from pvops_core.testing.proofs.proving import Prover
from pvops_core.testing.proofs.subject import Subject
from pvops_core.testing.proofs.telling import lines
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.machine import Vcpu
    from pvops_core.testing.conformance.cases import Case
    from pvops_core.testing.fixtures.cells import MachineCell
    from pvops_core.testing.fixtures.keptmachine import KeptMachine

SYSENTER_CS: Final = 0x174
"""The MSR that sysexit takes its segments from."""
UD2: Final = b"\x0f\x0b"
SEEDS: Final = range(3)
STATES: Final = 5
"""Of each op of a real kernel's; `pvops prove` tries more."""
_AUDITS: Final[pytest.StashKey[dict[MachineCell, Audit]]] = pytest.StashKey()
_RESULTS: Final[pytest.StashKey[dict[tuple[str, int], Mapping[str, int | str]]]] = pytest.StashKey()


class Conformance:
    """Everything that a backend must be, tried on every machine that it can be."""

    @pytest.fixture
    def pvops_case(self, request: pytest.FixtureRequest) -> Case:
        """What is tried; its op is what the verdict is about."""
        case: Case = request.param
        if case.op:
            request.node.user_properties.append(("pvops_op", case.op))
        return case

    @pytest.fixture
    def pvops_cell(self, pvops_case: Case) -> MachineCell:
        """The machine that the case is for."""
        if pvops_case.cell.why_not:
            pytest.skip(f"{pvops_case.cell.backend}: {pvops_case.cell.why_not}")
        return pvops_case.cell

    @pytest.fixture
    def pvops_lab(
        self, request: pytest.FixtureRequest, pvops_case: Case, pvops_cell: MachineCell, backends: Mapping[str, Backend]
    ) -> Iterator[KeptMachine]:
        """The machine; where the guest does not boot on it, one that gets the backend's own ops where tests begin."""
        try:
            kept: KeptMachine = request.getfixturevalue("pvops_lab")
        except MachineError as error:
            if not (pvops_case.law or request.function.__name__ == "test_patch_fits_and_relocates"):
                raise
            with LateMachine(pvops_cell, backends, request.config.getoption("--pvops-seed"), error) as late:
                yield late
        else:
            yield kept

    @pytest.fixture
    def backends(self, request: pytest.FixtureRequest) -> Mapping[str, Backend]:
        """All backends that are loaded."""
        return loaded_backends(request.config).backends

    def test_law(
        self, pvops_case: Case, pvops_lab: KeptMachine, backend: Backend, backends: Mapping[str, Backend]
    ) -> None:
        """The op keeps a law that holds for every backend."""
        if pvops_case.law is None:
            raise ValueError(f"{pvops_case} has no law")
        if pvops_lab.session.switchboard.implementation(pvops_case.op).form is Form.EMPTY:
            pytest.skip("the slot is empty")
        fixture = Fixture(pvops_lab, backend, capabilities(backend, backends))
        try:
            pvops_case.law.check(fixture, pvops_case.op)
        except AssertionError as error:
            raise AssertionError(told(error, pvops_case.law, fixture, pvops_case.op)) from error
        except PvopsError as error:
            note(error, pvops_case.law, fixture, pvops_case.op)
            raise
        must_boot(pvops_lab)

    def test_calling_convention(
        self, request: pytest.FixtureRequest, pvops_case: Case, backend: Backend, backends: Mapping[str, Backend]
    ) -> None:
        """Whenever the booting guest calls it, the op keeps the registers and flags that it may not destroy."""
        audits = request.config.stash.setdefault(_AUDITS, {})
        cell = pvops_case.cell
        if cell not in audits:
            audits[cell] = audit(cell.layout, backend, backends)
        found = audits[cell]
        if pvops_case.op in found.faults:
            raise AssertionError(
                f"{pvops_case.op} breaks its calling convention: {'; '.join(found.faults[pvops_case.op])}"
            )
        if not found.calls[pvops_case.op]:
            pytest.skip("no hook of its own that is told the vCPU was called in a boot")

    def test_patch_fits_and_relocates(self, pvops_case: Case, pvops_lab: KeptMachine) -> None:
        """``patch`` keeps within sites of every length, and what it writes is right where the site is."""
        patch, session = pvops_lab.patch, pvops_lab.session
        op, usual = pvops_case.op, usual_length(session.layout.by_op(pvops_case.op).op, session.layout)
        for length in sorted({usual, 5, 6, 7, 10, 16}):
            here, there = patch(op, length), patch(op, length, address=session.guest.symbols["exercise"])
            assert here.fits()
            assert there.fits()
            if here.branch and there.branch:
                ends = f"{here.target:#x} at one address and to {there.target:#x} at another"
                assert here.target == there.target, (
                    f"{op}: a {here.branch} leads to {ends}; the slot has {here.entry:#x}"
                )
            assert here.form == there.form, f"{op}: {here.form} at one address is {there.form} at another"
        if session.switchboard.implementation(op).form is Form.NOP:
            assert patch(op).form in {"nop", "inlined"}
        must_boot(pvops_lab)

    def test_patchlet_does_what_its_hook_does(self, pvops_case: Case, pvops_lab: KeptMachine) -> None:
        """The same registers, result, flags and memory from the same random states."""
        op, call = pvops_case.op, pvops_lab.call
        patchlet = pvops_lab.session.switchboard.context().patchlets.get(op)
        if patchlet is None:
            pytest.skip("its patchlet stands for an implementation that is not in force")
        user = op == "irq_enable_sysexit"
        if user and call.cpu.cpl:
            pytest.skip("sysexit is for ring 0, and this guest's kernel is not there")
        pages = _user_pages(pvops_lab) if user else 0
        bench = bench_of(pvops_lab.session, user=pages, text=call.text, scratch=call.page())
        for symbol, _addend in references(patchlet.asm):
            if symbol not in bench.symbols:
                pytest.skip(f"the guest has no {symbol}")
            call.store(bench.symbols[symbol], call.load(bench.symbols[symbol]))  # a shadowed page is there from now on
        for state in ("irq_enable", "irq_disable"):
            call(state)
            for seed in SEEDS:
                check_equivalence(bench, op, seed)

    def test_switches_there_and_back(
        self, pvops_case: Case, pvops_lab: KeptMachine, backend: Backend, backends: Mapping[str, Backend]
    ) -> None:
        """To a function, to nothing, to every backend of the chain and back; a switch that fails changes nothing."""
        session, call, patch = pvops_lab.session, pvops_lab.call, pvops_lab.patch
        op, board = pvops_case.op, session.switchboard
        first, declared = board.implementation(op), session.layout.by_op(op).op
        before = _sites(session, op)
        served: list[int] = []

        def probe(cpu: Vcpu) -> int:
            served.append(cpu.index)
            return 0

        board.switch(op, probe, by="conformance")
        if declared.convention is not Convention.JUMP:
            call(op, *[0] * len(declared.args))
            assert served == [0]
        for number in range(len(before)):
            form = patch.site(op, number).form
            assert form in {"call", "jump", "left"}, f"site {number} is {form} after a switch to a function"
        board.switch(op, None, by="conformance")
        with pytest.raises(SwitchError):
            board.switch(op, "no such backend", by="conformance")
        assert board.implementation(op).form is Form.NOP
        for link in chain(backend, backends):
            board.switch(op, link.name, by="conformance")
        board.switch(op, first, by="conformance")
        assert board.implementation(op) is first
        assert _sites(session, op) == before
        assert [switch.op for switch in board.history if switch.by == "conformance"]

    def test_whole_guest(
        self, request: pytest.FixtureRequest, pvops_case: Case, backend: Backend, backends: Mapping[str, Backend]
    ) -> None:
        """The built-in guest comes to its end with the results that it has on the backend's last base."""
        cell = pvops_case.cell
        known = request.config.stash.setdefault(_RESULTS, {})
        last = chain(backend, backends)[-1]
        if (cell.layout, cell.vcpus) not in known:
            known[cell.layout, cell.vcpus] = _results(cell, last.name, backends)
        wanted = known[cell.layout, cell.vcpus]
        assert wanted["status"] == "done"
        results = _results(cell, backend.name, backends, cell.cmdline)
        others = {name: (results.get(name), value) for name, value in wanted.items() if results.get(name) != value}
        assert results == wanted, f"the guest's results are not those that it has on {last.name}: {others or results}"

    def test_hooks_do_what_the_kernels_functions_do(
        self, request: pytest.FixtureRequest, pvops_case: Case, backends: Mapping[str, Backend]
    ) -> None:
        """From the same states of a boot of the kernel that ``--pvops-kernel`` names, its first process included."""
        given, name = request.config.getoption("--pvops-kernel"), pvops_case.cell.backend
        image = find_image(given) if given else None
        if image is None:
            pytest.skip("no kernel image: give --pvops-kernel FILE")
        try:
            subject = Subject.of(name, backends, image, request.config.getoption("--pvops-initrd"), "")
        except UsageError as error:
            pytest.skip(f"{name}: {error}")
        seed = request.config.getoption("--pvops-seed")
        proof = Prover.of(attrs.evolve(subject, seed=seed), states=STATES).prove()
        assert not proof.unexplained, "\n".join(lines(proof))

    def test_two_runs_are_one(self, pvops_case: Case, backends: Mapping[str, Backend]) -> None:
        """Of one seed: the same events at the same times."""
        cell = pvops_case.cell
        logs = set()
        for _ in range(2):
            with _session(cell, cell.backend, backends) as session:
                finish(session)
                logs.add(session.machine.log.sha256)
        assert len(logs) == 1, "two runs with one seed differ: something of the host's gets into the run"


def _user_pages(kept: KeptMachine) -> int:
    """Map a page of undefined instructions and one for a stack where user mode sees them; where sysexit leads, too."""
    session, call, cpu = kept.session, kept.call, kept.call.cpu
    base = USER[session.guest.kind.bits]
    for number in range(2):
        page = call.page()
        cpu.write_virtual(page, UD2 * (PAGE // len(UD2)))
        call.function("mm_map", session.guest.symbols["init_mm"], base + number * PAGE, page, TABLE, 0)
    # sysexit is #GP(0) while its MSR is 0 (SDM volume 2, SYSEXIT).
    if not cpu.insn.rdmsr(SYSENTER_CS):
        cpu.insn.wrmsr(SYSENTER_CS, cpu.selector("cs"))
    return base


def _sites(session: Session, op: str) -> list[bytes]:
    """The bytes of an op's sites."""
    slot = session.layout.by_op(op)
    return [session.read(site.address, site.length) for site in session.builtin.sites if site.type == slot.type]


def _session(cell: MachineCell, backend: str, backends: Mapping[str, Backend], cmdline: str = "") -> Session:
    links = chain(backends[backend], backends)
    try:
        return Session(builtin_guest(cell.layout, cmdline), links, vcpus=cell.vcpus, memory=MEMORY)
    except UsageError as error:
        pytest.skip(f"{backend}: {error}")


def _results(
    cell: MachineCell, backend: str, backends: Mapping[str, Backend], cmdline: str = ""
) -> Mapping[str, int | str]:
    with _session(cell, backend, backends, cmdline) as session:
        stop = finish(session)
        said = f"the guest on {backend} ended by {stop.reason} {stop.detail}".rstrip()
        assert stop.reason == "poweroff", f"{said}; it said: {session.platform.console.decode()[-300:].strip()}"
        return session.report().results

"""The direct forms of the interrupt ops: true lengths, the same effect as the hooks, and where xen_patch uses them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs
import pvops_native
import pvops_xen
import pytest
from pvops_xen.patchlets import XEN_PATCHLETS

from pvops_core.guests import builtin_guest
from pvops_core.machine import MachineKind
from pvops_core.ops import LAYOUTS
from pvops_core.patching.patchlets import check
from pvops_core.session import Session
from pvops_core.testing.equivalence import Bench as Equivalence
from pvops_core.testing.equivalence import bench_of, check_equivalence

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

CHAIN = (pvops_xen.backend, pvops_native.backend)
LAYOUT = "2.6.24-pae"
LENGTHS = {"irq_disable": 7, "save_fl": 12, "irq_enable": 16, "restore_fl": 25}


def place_vcpu_info(session: Session) -> int:
    """Register the guest's own copy of vcpu_info, as its driver does; gives its machine address."""
    platform = session.platform
    assert isinstance(platform, pvops_xen.XenPlatform)
    place = platform.machine_address(session.guest.symbols["xen_vcpu_info"] - session.builtin.kernel_base)
    cpu = session.machine.vcpus[0]
    cpu.rsp = session.guest.symbols["boot_stack"] + 0x1000
    cpu.write_virtual(cpu.rsp, struct.pack("<QII", place >> 12, place & 0xFFF, 0))
    assert platform.hypercall(cpu, 24, 10, 0, cpu.rsp) == 0
    # The CPU marks the entries that map it; a hook does not.
    for entry, _value in cpu.walk(session.guest.symbols["xen_vcpu_info"]).entries:
        session.machine.memory.set_u8(entry, session.machine.memory.u8(entry) | 0x60)
    return place


@pytest.fixture
def equivalence() -> Iterator[tuple[Equivalence, int]]:
    with Session(builtin_guest(LAYOUT), CHAIN) as session:
        place = place_vcpu_info(session)

        def prepare(generator: random.Random) -> None:
            session.machine.memory.set_u8(place, 0)
            session.machine.memory.set_u8(place + 1, generator.randrange(2))

        bench = bench_of(session, prepare)
        symbols = dict(bench.symbols) | {"check_events": session.machine.gates.return_address}
        patchlets = {patchlet.op: patchlet for patchlet in XEN_PATCHLETS}
        yield attrs.evolve(bench, symbols=symbols, patchlets=patchlets), place


@pytest.mark.parametrize("patchlet", XEN_PATCHLETS, ids=lambda patchlet: patchlet.op)
def test_bytes_are_the_assembly_and_have_the_measured_length(patchlet: pvops_xen.patchlets.Patchlet) -> None:
    assert patchlet.size == LENGTHS[patchlet.op]
    check(patchlet, LAYOUTS[LAYOUT].by_op(patchlet.op).op, MachineKind.PAE, patchlet.size)


@pytest.mark.parametrize("op", ["irq_disable", "save_fl", "irq_enable"])
def test_hook_and_patchlet_agree(equivalence: tuple[Equivalence, int], op: str) -> None:
    for seed in range(6):
        check_equivalence(equivalence[0], op, seed)


@pytest.mark.parametrize("flags", [0, 0x200, 0x246])
def test_restore_fl_sets_the_mask_as_its_patchlet_does(equivalence: tuple[Equivalence, int], flags: int) -> None:
    bench, place = equivalence
    patchlet = bench.patchlets["restore_fl"]
    code = patchlet.assemble(bench.text, bench.symbols) + b"\x0f\x0b"
    bench.machine.memory.write(bench.translate(bench.text), code)
    bench.machine.invalidate([(bench.text, bench.text + len(code))])
    bench.machine.memory.set_u8(place, 0)
    bench.cpu.set("eax", flags)
    bench.cpu.rip = bench.text
    bench.machine.run(max_ns=1_000_000)
    assert bench.machine.memory.u8(place + 1) == (0 if flags & 0x200 else 1)


def test_only_irq_disable_fits_the_sites_that_c_code_has() -> None:
    with Session(builtin_guest(LAYOUT), CHAIN) as session:
        session.run(max_ns=20_000_000_000)
        forms = {(op, length) for op, length in _inlined(session)}
        assert ("irq_disable", 10) in forms
        assert not [op for op, _length in forms if op != "irq_disable"]


def _inlined(session: Session) -> list[tuple[str, int]]:
    """(op, length) of the sites that begin with a store to or test of vcpu_info."""
    layout = LAYOUTS[LAYOUT]
    vcpu_info = session.guest.symbols["xen_vcpu_info"]
    found = []
    for site in session.builtin.sites:
        code = session.read(site.address, site.length)
        if any(struct.pack("<I", vcpu_info + offset) in code for offset in (0, 1)):
            found.append((layout.by_type(site.type).op.name, site.length))
    return found


def test_with_two_vcpus_the_calls_stay() -> None:
    with Session(builtin_guest(LAYOUT), CHAIN, vcpus=2) as session:
        session.run(max_ns=20_000_000_000)
        assert not _inlined(session)

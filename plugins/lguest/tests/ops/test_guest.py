"""What all ops share: the first hypercall, symbols that are missing, memory that the shadow lacks, the end."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from pvops_lguest.host.abi import Call
from pvops_lguest.ops import LguestOps

from plugins.lguest.tests.ops_rig import OpsHost
from plugins.lguest.tests.rig import BASE, DATA
from pvops_core.backends import Environment
from pvops_core.errors import UsageError
from pvops_core.machine import GuestFault
from pvops_core.ops import LAYOUTS

if TYPE_CHECKING:
    from .conftest import MakeHost
from plugins.lguest.tests.ops_fixtures import SCRATCH, told


def test_other_platforms_are_refused(make_host: MakeHost) -> None:
    host = make_host()
    environment = Environment(
        machine=host.machine,
        layout=LAYOUTS["2.6.24"],
        platform=SimpleNamespace(),  # type: ignore[arg-type]  # on purpose
        symbols={},
        switch=SimpleNamespace(),  # type: ignore[arg-type]  # never called
    )
    with pytest.raises(UsageError, match="lguest host"):
        LguestOps(environment)


def test_the_first_hypercall_of_the_ops_is_init(make_host: MakeHost) -> None:
    guest = OpsHost(make_host())
    guest.ops.irq_enable(guest.vcpu)
    assert guest.calls() == []
    guest.ops.write_cr3(guest.vcpu, guest.host.gpgdir)
    assert guest.calls() == [("LGUEST_INIT", DATA, 0, 0), ("NEW_PGTABLE", guest.host.gpgdir, 0, 0)]


def test_an_op_says_which_symbol_is_missing(guest: OpsHost) -> None:
    with pytest.raises(UsageError, match="no_such_symbol"):
        guest.ops.symbol("no_such_symbol")


def test_pointers_into_what_the_shadow_lacks_are_filled_in(guest: OpsHost) -> None:
    """The op is served at once; the guest sees a fault only where its own tables forbid the access."""
    guest.host.call(Call.FLUSH_TLB, 1)
    assert guest.ops.u32(guest.vcpu, BASE + DATA + guest.host.state.abi.data.reserve_mem) == 4 << 20
    with pytest.raises(GuestFault) as fault:
        guest.ops.set_pte(guest.vcpu, 0x1000, 1)
    assert (fault.value.vector, fault.value.address) == (14, 0x1000)


def test_after_a_kill_nothing_more_is_done(guest: OpsHost) -> None:
    guest.host.machine.memory.write(SCRATCH, struct.pack("<4I", 0, 0x8500, 0x610008, 0xC0008E00))
    guest.host.machine.memory.write(SCRATCH + 0x800, struct.pack("<HI", 15, BASE + SCRATCH))
    calls = told(guest, lambda: guest.ops.load_idt(guest.vcpu, BASE + SCRATCH + 0x800))
    assert calls == [("LOAD_IDT_ENTRY", 0, 0, 0x8500)]
    assert guest.host.state.traps.gate(1) is None
    assert guest.host.ends() == ("crash", "bad IDT type 5")

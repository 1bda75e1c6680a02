"""Page-table entries: whole, in order, and taken out while they change."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from rig import SCRATCH, Rig

from pvops_core.kinds import MachineKind


@settings(max_examples=25, derandomize=True, deadline=None)
@given(value=st.integers(0, (1 << 64) - 1))
def test_entries_are_stored_whole(shared: Rig, value: int) -> None:
    size = shared.kind.entry_size
    value &= (1 << size * 8) - 1
    place = shared.at(SCRATCH)
    stores = [shared.ops.set_pte, shared.ops.set_pmd, shared.ops.set_pte_at]
    if shared.kind is MachineKind.PAE:
        stores += [shared.ops.set_pud, shared.ops.set_pte_atomic, shared.ops.set_pte_present]
    if shared.kind is MachineKind.X86_64:
        stores += [shared.ops.set_pud, shared.ops.set_p4d, shared.ops.set_pgd]
    for store in stores:
        shared.cpu.write_virtual(place, b"\xee" * 16)
        store(shared.cpu, place, value)
        assert shared.cpu.read_virtual(place, 16) == value.to_bytes(size, "little") + b"\xee" * (16 - size)
    assert shared.ops.pte_val(shared.cpu, value) == shared.ops.make_pgd(shared.cpu, value) == value


class Recorder:
    """A vCPU's stores, in order, as the other processors could see them."""

    def __init__(self) -> None:
        self.stores: list[tuple[int, int, int]] = []

    def set_u32(self, va: int, value: int) -> None:
        self.stores.append((va, 4, value))

    def set_u64(self, va: int, value: int) -> None:
        self.stores.append((va, 8, value))


def test_pae_stores_keep_their_order() -> None:
    with Rig("2.6.23-pae") as rig:
        value, high, low = 0x1122_3344_5566_7788, 0x1122_3344, 0x5566_7788
        cases = [
            (lambda cpu: rig.ops.set_pte(cpu, 0, value), [(4, 4, high), (0, 4, low)]),
            (lambda cpu: rig.ops.set_pte_present(cpu, 0, value), [(0, 4, 0), (4, 4, high), (0, 4, low)]),
            (lambda cpu: rig.ops.set_pte_atomic(cpu, 0, value), [(0, 8, value)]),
            (lambda cpu: rig.ops.set_pmd(cpu, 0, value), [(0, 8, value)]),
            (lambda cpu: rig.ops.pte_clear(cpu, 0), [(0, 4, 0), (4, 4, 0)]),
            (lambda cpu: rig.ops.pmd_clear(cpu, 0), [(0, 4, 0), (4, 4, 0)]),
        ]
        for act, stores in cases:
            recorder = Recorder()
            act(recorder)
            assert recorder.stores == stores


def test_protection_changes_take_the_entry_out(wide: Rig) -> None:
    place = wide.at(SCRATCH)
    wide.cpu.set_u64(place, 0x8000_0000_0000_1067)
    assert wide.ops.ptep_modify_prot_start(wide.cpu, place) == 0x8000_0000_0000_1067
    assert wide.cpu.u64(place) == 0
    wide.ops.ptep_modify_prot_commit(wide.cpu, place, 0x1065)
    assert wide.cpu.u64(place) == 0x1065

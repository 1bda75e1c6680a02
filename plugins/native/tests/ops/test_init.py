"""The start: early tables, the memory map, the banner."""

from __future__ import annotations

from rig import SCRATCH, Rig


def test_early_pae_tables() -> None:
    with Rig("2.6.24-pae") as rig:
        rig.symbols["empty_zero_page"] = rig.at(SCRATCH + 0x1000)
        base = rig.at(SCRATCH)
        rig.cpu.set_u64(base + 24, 0x7000 | 1)
        rig.ops.pagetable_setup_start(rig.cpu, base)
        zero = SCRATCH + 0x1000 | 1
        assert [rig.cpu.u64(base + 8 * n) for n in range(4)] == [zero, zero, zero, 0]
        rig.cpu.set_u64(base + 24, 0x7000 | 1)
        rig.ops.pagetable_setup_done(rig.cpu, base)
        assert rig.cpu.u64(base) == 0x7000 | 1
        live = rig.cpu.read_virtual(rig.at(rig.root), 32)
        rig.ops.pagetable_setup_start(rig.cpu, rig.at(rig.root))
        assert rig.cpu.read_virtual(rig.at(rig.root), 32) == live


def test_boot(rig: Rig) -> None:
    rig.symbols["e820"] = rig.at(SCRATCH)
    assert rig.ops.memory_setup(rig.cpu) == 0
    assert rig.cpu.u32(rig.at(SCRATCH)) == 1
    assert rig.cpu.u64(rig.at(SCRATCH) + 12) == rig.machine.memory.size
    rig.ops.pagetable_reserve(rig.cpu, 0x1000, 0x3000)
    assert rig.ops.reserved == [(0x1000, 0x3000)]
    del rig.symbols["e820"]


def test_banner_names_what_the_table_names() -> None:
    with Rig("2.6.23") as rig:
        rig.symbols["paravirt_ops"] = rig.at(SCRATCH)
        rig.ops.banner(rig.cpu)
        text = rig.at(SCRATCH) + 0x800
        rig.cpu.write_virtual(text, b"paper\0")
        rig.cpu.set_u32(rig.at(SCRATCH) + 12, text)
        rig.ops.banner(rig.cpu)
        lines = bytes(rig.platform.console).splitlines()
        assert [line.split(b" on ")[1] for line in lines] == [b"bare hardware", b"paper"]

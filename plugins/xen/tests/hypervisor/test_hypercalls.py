"""Hypercalls: arguments of any kind end in an error code, never in an exception, and references stay right."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pvops_xen.hypervisor.abi import EEXIST, EINVAL, ENOENT, ENOSYS
from pvops_xen.hypervisor.memory import audit
from pvops_xen.hypervisor.state import EntryPoint

from pvops_core.kinds import MachineKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Bench


def interesting(bench: Bench) -> st.SearchStrategy[int]:
    fixed = [0, 1, 2, 3, 7, 0x7FF0, 0x7FF1, bench.va(0x110), bench.va(0x111), bench.va(0x200), bench.mfn(0x300)]
    fixed += [bench.mfn(0x200), bench.mfn(0x300) << 12 | 0x63, bench.mfn(0x200) << 12, (1 << 64) - 1, 1 << 63, 1 << 31]
    fixed += [0xFFFF800000000000, 0xF5800000, bench.va(0x110) + 0xFF8]
    return st.one_of(st.sampled_from(fixed), st.integers(0, (1 << 64) - 1), st.integers(0, 64))


@pytest.mark.parametrize("kind", [MachineKind.X86_64, MachineKind.PAE], ids=["64", "pae"])
def test_any_arguments(make_bench: Callable[..., Bench], kind: MachineKind) -> None:
    bench = make_bench(kind, 2)
    values = interesting(bench)

    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(
        number=st.integers(0, 60).filter(lambda n: n != 23),
        args=st.lists(values, max_size=6),
        data=st.lists(values, max_size=12),
    )
    def fuzz(number: int, args: list[int], data: list[int]) -> None:
        mask = (1 << 8 * bench.word) - 1
        bench.write(0x110, bench.words(*(value & mask for value in data)) or b"\0")
        result = bench.call(number, *args)
        assert isinstance(result, int)
        assert result > -200
        audit.check(bench.platform.hv)

    fuzz()


def test_the_instruction_and_the_python_entry_are_one_path(bench: Bench) -> None:
    code = "b811000000" + ("bf000000000f05" if bench.word == 8 else "bb00000000cd82") + "0f0b"
    bench.run(code)
    assert bench.cpu.get("rax") == 4 << 16 | 17
    assert bench.call(17, 0) == 4 << 16 | 17
    assert bench.platform.hypercalls["xen_version"] == 2
    numbers = [dict(event.fields)["nr"] for event in bench.machine.log.events if event.kind == "hypercall"]
    assert numbers == [17, 17]


def test_a_ring_3_process_of_a_32_bit_guest_makes_no_hypercalls(bench32: Bench) -> None:
    bench32.cpu.set_segments(3, 0xE02B, 0xE033)
    assert bench32.run("cd82").reason == "crash"
    assert not bench32.platform.hypercalls["xen_version"]


def test_multicall_stores_results_and_does_not_nest(bench: Bench) -> None:
    entry = (
        bench.words(17, 0, 0, 0, 0, 0, 0, 0),
        bench.words(50, 0, 0, 0, 0, 0, 0, 0),
        bench.words(13, 0, 0, 0, 0, 0, 0, 0),
    )
    address = bench.write(0x111, b"".join(entry))
    assert bench.call(13, address, 3) == 0
    raw = bench.cpu.read_virtual(address, 3 * 8 * bench.word)
    results = struct.unpack(f"<24{'q' if bench.word == 8 else 'i'}", raw)[1::8]
    assert results == (4 << 16 | 17, -ENOSYS, -EINVAL)


def test_event_channels(bench: Bench) -> None:
    def op(command: int, *words: int) -> tuple[int, int]:
        address = bench.write(0x110, struct.pack("<4I", *(*words, 0, 0, 0, 0)[:4]))
        return bench.call(32, command, address), address

    result, address = op(1, 0, 0)
    port = bench.cpu.u32(address + 8)
    assert (result, port) == (0, 1)
    assert op(1, 0, 0)[0] == -EEXIST
    assert op(1, 99, 0)[0] == -EINVAL
    assert op(1, 0, 9)[0] == -ENOENT
    result, address = op(7, 0)
    ipi = bench.cpu.u32(address + 4)
    info = bench.platform.hv.domain.vcpus[0].info
    assert op(4, ipi)[0] == 0
    assert bench.platform.hv.memory.u8(info) == 1
    assert bench.platform.hv.memory.u8(bench.platform.hv.domain.shared_info + 2048) == 1 << ipi
    assert op(4, port)[0] == -EINVAL
    assert op(3, ipi)[0] == 0
    assert op(3, ipi)[0] == -EINVAL
    assert op(9, 77)[0] == -EINVAL


def test_vcpu_info_moves_with_its_contents(bench: Bench) -> None:
    hv = bench.platform.hv
    hv.memory.write(hv.domain.vcpus[0].info + 16, b"abcd")
    where = struct.pack("<QII", bench.mfn(0x310), 0x40, 0)
    assert bench.call(24, 10, 0, bench.write(0x110, where)) == 0
    new = bench.mfn(0x310) << 12 | 0x40
    assert hv.domain.vcpus[0].info == new
    assert hv.memory.u8(new) == 1
    assert hv.memory.u8(new + 1) == 1
    assert bench.call(24, 10, 0, bench.write(0x110, where)) == -EINVAL
    assert bench.call(24, 3, 5, 0) == -ENOENT
    assert bench.call(24, 3, 0, 0) == 1


def test_a_blocked_vcpu_wakes_at_its_timer(bench64: Bench) -> None:
    hv = bench64.platform.hv
    hv.domain.vcpus[0].event = EntryPoint(0, bench64.write(0x108, b"\x0f\x0b"), mask_events=True)
    bench64.call(32, 1, bench64.write(0x110, struct.pack("<3I", 0, 0, 0)))
    bench64.call(24, 8, 0, bench64.write(0x110, struct.pack("<QI", 5_000_000, 0)))
    stop = bench64.run("b81d000000bf010000000f05ebfe")
    assert stop.detail.startswith("Unhandled: vec 6")
    assert 5_000_000 <= bench64.machine.clock.ns < 6_000_000


def test_snapshots_hold_the_hypervisor(bench: Bench) -> None:
    bench.set_mapping(0x300, writable=False)
    snapshot = bench.machine.snapshot()
    table = list(bench.platform.hv.frames.types)
    hypercalls = bench.platform.hypercalls.copy()
    bench.mmuext(0, bench.mfn(0x300))
    bench.call(18, 0, 3, bench.write(0x110, b"abc"))
    bench.machine.restore(snapshot)
    assert list(bench.platform.hv.frames.types) == table
    assert bench.platform.hypercalls == hypercalls
    assert bench.platform.console == b""
    audit.check(bench.platform.hv)

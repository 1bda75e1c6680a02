"""The built-in guest's image: sites, records, tables and handlers, by layout."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import UsageError
from pvops_core.guests import LAYOUTS, BuiltinGuest, builtin_guest
from pvops_core.guests.builtin.image import OBJECTS
from pvops_core.kinds import MachineKind
from pvops_core.ops import LAYOUTS as ALL_LAYOUTS
from pvops_core.ops import Convention, Layout
from pvops_core.patching.altinstructions.alternatives import FEATURES

if TYPE_CHECKING:
    from pvops_core.patching.sites import SiteRecord

IRQ_OPS = frozenset({"save_fl", "restore_fl", "irq_disable", "irq_enable"})
NATIVE_INLINES = {
    "save_fl": "9c58",
    "irq_disable": "fa",
    "irq_enable": "fb",
    "read_cr2": "0f20d0",
    "read_cr3": "0f20d8",
    "write_cr3": "0f22df",
    "wbinvd": "0f09",
    **{f"{level}_val": "4889f8" for level in ("pte", "pmd", "pud", "p4d", "pgd")},
    **{f"make_{level}": "4889f8" for level in ("pte", "pmd", "pud", "p4d", "pgd")},
    "queued_spin_unlock": "c60700",
    "vcpu_is_preempted": "4831c0",
}
"""What Linux 6.1 puts into its ALTERNATIVEs (asm/paravirt.h): the replacement of each op that has one."""


@pytest.fixture(params=LAYOUTS)
def guest(request: pytest.FixtureRequest) -> BuiltinGuest:
    return builtin_guest(request.param)


@pytest.fixture
def layout(guest: BuiltinGuest) -> Layout:
    return ALL_LAYOUTS[guest.layout]


def test_every_op_has_two_sites(guest: BuiltinGuest, layout: Layout) -> None:
    sites = Counter(layout.by_type(site.type).op.name for site in guest.sites)
    callable_ops = {slot.op.name for slot in layout.slots if not slot.op.is_data}
    assert {op for op in callable_ops if sites[op] < 2} == set()
    assert set(sites) <= callable_ops


def called_through(guest: BuiltinGuest, site: SiteRecord, code: bytes, at: int) -> int:
    """Address of the slot that the memory operand at ``at`` names."""
    operand = int.from_bytes(code[at : at + 4], "little", signed=True)
    if guest.kind is MachineKind.X86_64:
        return site.address + at + 4 + operand
    return operand & 0xFFFFFFFF


SHAPES = (
    (6, re.compile(rb"\xff\x15....", re.DOTALL), 2),
    (10, re.compile(rb"\x51\x52\xff\x15....\x5a\x59", re.DOTALL), 4),
    (13, re.compile(rb"\x50\x51\x52\x2e\xff\x15....\x5a\x59\x58", re.DOTALL), 6),
    (7, re.compile(rb"\x2e\xff\x25....", re.DOTALL), 3),
)


def test_sites_have_the_shapes_of_their_generation(guest: BuiltinGuest, layout: Layout) -> None:
    for site in guest.sites:
        code = guest.image.read(site.address, site.length)
        op = layout.by_type(site.type).op
        length, operand = next((n, at) for n, shape, at in SHAPES if shape.fullmatch(code))
        assert called_through(guest, site, code, operand) == layout.slot_address(guest.symbols, site.type)
        if guest.kind is MachineKind.X86_64:
            expected = {6}
        elif op.convention is Convention.JUMP:
            expected = {7}
        elif op.name in IRQ_OPS:
            expected = {10, 13}
        else:
            expected = {6}
        assert length in expected, op.name


def test_clobber_words(guest: BuiltinGuest, layout: Layout) -> None:
    if layout.record_size == 16:
        assert {site.clobbers for site in guest.sites} == {0}
        return
    words = defaultdict(set)
    for site in guest.sites:
        words[site.length].add(site.clobbers)
    assert words == {6: {7}, 10: {1}, 13: {0, 7}, 7: {0}}


def test_records_have_the_size_of_their_generation(guest: BuiltinGuest, layout: Layout) -> None:
    assert guest.image.paravirt is not None
    assert len(guest.image.paravirt) == layout.record_size * len(guest.sites)


def test_alternatives_are_those_of_linux(guest: BuiltinGuest, layout: Layout) -> None:
    by_address = {site.address: layout.by_type(site.type).op.name for site in guest.sites}
    found = defaultdict(set)
    covered = set()
    for entry in guest.alternatives:
        op = by_address.get(entry.address)
        if op is None:
            continue
        covered.add(entry.address)
        lock = {"queued_spin_unlock": "PVUNLOCK", "vcpu_is_preempted": "VCPUPREEMPT"}.get(op, "XENPV")
        assert entry.length == 6
        assert entry.applies(frozenset())
        assert not entry.applies(frozenset({FEATURES[lock]}))
        found[op].add(guest.image.read(entry.replacement, entry.replacement_length).hex())
    if guest.kind is not MachineKind.X86_64:
        assert guest.alternatives == ()
        return
    assert found == {op: {code} for op, code in NATIVE_INLINES.items()}
    assert covered == {address for address, op in by_address.items() if op in NATIVE_INLINES}


def test_the_way_back_to_user_mode_has_alternatives(guest: BuiltinGuest) -> None:
    if guest.kind is not MachineKind.X86_64:
        return
    sites = {site.address for site in guest.sites}
    others = [entry for entry in guest.alternatives if entry.address not in sites]
    code = {guest.image.read(entry.replacement, entry.replacement_length) for entry in others}
    assert bytes.fromhex("48cf") in code  # iretq
    assert bytes.fromhex("0f01f8") in code  # swapgs
    assert all(entry.applies(frozenset()) for entry in others)
    # Forced on bare metal, XENPV must not lead there: the guest itself looks who its host is.
    assert not any(entry.applies(frozenset({FEATURES["XENPV"]})) for entry in others)


def test_tables_and_gates(guest: BuiltinGuest, layout: Layout) -> None:
    symbols = guest.symbols
    assert symbols["pv_nr_types"] == len(layout.slots)
    assert {slot.symbol for slot in (*layout.slots, *layout.boot_hooks)} <= symbols.keys()
    start, end = guest.text_range
    size = symbols["gate_count"] * symbols["gate_size"]
    assert guest.gates_address % 0x1000 == 0
    assert size == 2 * 0x1000
    assert start <= guest.gates_address
    assert guest.gates_address + size <= end
    assert len(layout.slots) + len(layout.boot_hooks) < guest.gate_count


def test_every_handler_has_its_xen_twin(guest: BuiltinGuest) -> None:
    names = {name for name in guest.symbols if name.startswith("asm_")}
    assert {"asm_exc_page_fault", "asm_exc_general_protection", "asm_irq_0"} <= names
    for name in names:
        ahead = guest.symbols[name] - guest.symbols[f"xen_{name}"]
        assert ahead == (3 if guest.kind is MachineKind.X86_64 else 0)  # pop rcx; pop r11
        if ahead:
            assert guest.image.read(guest.symbols[f"xen_{name}"], 3) == bytes.fromhex("59415b")


def test_segments_lie_at_the_kernel_base(guest: BuiltinGuest) -> None:
    assert guest.entry == guest.kernel_base + 0x100000
    for segment in guest.image.segments:
        assert segment.address - segment.physical == guest.kernel_base
    assert guest.kernel_base == (0xFFFFFFFF80000000 if guest.kind is MachineKind.X86_64 else 0xC0000000)


def test_objects_name_no_path_of_the_builder(guest: BuiltinGuest) -> None:
    for text in (b"/tmp", b"/work", b"/home", b"/root", b".debug", b"GCC:"):
        assert text not in guest.image.data


def test_builtin_refuses_what_is_not_there() -> None:
    with pytest.raises(UsageError, match=r"6\.1-32"):
        builtin_guest("6.1-32")


def test_objects_are_those_of_the_layouts() -> None:
    assert {path.name for path in OBJECTS.iterdir()} == {f"guest-{name}.elf" for name in LAYOUTS}

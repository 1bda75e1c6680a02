"""The guest's header of ops as the compiler understands it, against the catalogue."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from pvops_core.guests import LAYOUTS
from pvops_core.guests.builtin.build import SOURCE, VARIANTS
from pvops_core.guests.builtin.tables import table_header
from pvops_core.ops import LAYOUTS as ALL_LAYOUTS
from pvops_core.ops import Layout, Slot

_GROUP = re.compile(r"^(pv_)?(init|time|cpu|irq|apic|mmu|lock)(_ops)?\.")


def compiled(name: str, text: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    flags = [
        *VARIANTS[name].flags,
        "-ffreestanding",
        "-nostdinc",
        "-fno-pic",
        f"-I{SOURCE}",
        "-fsyntax-only",
        "-xc",
        "-",
    ]
    text = table_header(ALL_LAYOUTS[name]) + text
    return subprocess.run(["gcc", *flags], input=text, text=True, capture_output=True, check=False)


def named(slot: Slot) -> str:
    """Group and op, as the guest's macros take them."""
    group = _GROUP.match(slot.path)
    return f"{group[2] if group else slot.op.group}, {_GROUP.sub('', slot.path)}"


@pytest.mark.parametrize("name", LAYOUTS)
def test_numbers_and_places_are_the_catalogues(name: str) -> None:
    layout, size = ALL_LAYOUTS[name], ALL_LAYOUTS[name].pointer_size
    claims = [f"PV_NR_TYPES == {len(layout.slots)}", f"sizeof(struct boot_ops) == {size * len(layout.boot_hooks)}"]
    claims += [f"PV_TYPE({named(slot)}) == {slot.type}" for slot in layout.slots]
    claims += [f"offsetof(struct boot_ops, {slot.op.name}) == {slot.offset}" for slot in layout.boot_hooks]
    done = compiled(name, "".join(f'_Static_assert({claim}, "{claim}");\n' for claim in claims))
    assert done.returncode == 0, done.stderr
    wrong = compiled(name, f'_Static_assert(PV_TYPE({named(layout.slots[1])}) == 0, "");\n')
    assert "static assertion failed" in wrong.stderr


@pytest.mark.parametrize("name", LAYOUTS)
def test_slots_are_where_the_catalogue_has_them(name: str) -> None:
    layout = ALL_LAYOUTS[name]
    places = "".join(
        f"_Static_assert(__builtin_constant_p((char *)&PV_SLOT({named(slot)}) - (char *)&{slot.symbol}) && "
        f'(char *)&PV_SLOT({named(slot)}) - (char *)&{slot.symbol} == {slot.offset}, "{slot.path}");\n'
        for slot in layout.slots
    )
    done = compiled(name, f"PV_DEFINE_TABLES\nvoid check(void);\nvoid check(void) {{\n{places}}}\n")
    assert done.returncode == 0, done.stderr


def prototypes(layout: Layout) -> dict[str, str]:
    return dict(re.findall(r"^#define PV_OF_(\w+)\t(.*)$", table_header(layout), re.MULTILINE))


def test_prototypes_are_the_kernels() -> None:
    wide, old = prototypes(ALL_LAYOUTS["6.1-64"]), prototypes(ALL_LAYOUTS["2.6.24-pae"])
    assert wide["get_debugreg"] == "PV_FUNC1(unsigned long, cpu, get_debugreg, int)"
    assert wide["write_idt_entry"] == "PV_VOID3(cpu, write_idt_entry, const void *, int, const void *)"
    assert wide["set_fixmap"] == "PV_VOID3(mmu, set_fixmap, unsigned int, u64, u64)"
    assert old["read_msr"] == "PV_FUNC2(u64, cpu, read_msr, unsigned int, const void *)"
    assert old["memory_setup"] == "PV_FUNC0(unsigned long, init, memory_setup)"
    for name in ("set_pte", "pte_val", "iret", "lazy_mode"):
        assert name not in old, "entries are wrapped by hand, jumps and data not at all"


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_op_of_the_guest_is_one_of_a_layout(name: str) -> None:
    """What a header asks for is made for one of its layouts at least, and each of them makes something of it."""
    header = SOURCE / ("paravirt_64.h" if ALL_LAYOUTS[name].pointer_size == 8 else "paravirt_32.h")
    asked = set(re.findall(r"^PV_OP\((\w+)\)$", header.read_text(), re.MULTILINE))
    kin = [each for each in LAYOUTS if ALL_LAYOUTS[each].pointer_size == ALL_LAYOUTS[name].pointer_size]
    assert asked <= set().union(*(prototypes(ALL_LAYOUTS[each]) for each in kin))
    assert len(asked & set(prototypes(ALL_LAYOUTS[name]))) > 45

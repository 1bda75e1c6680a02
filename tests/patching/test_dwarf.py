"""Layouts that a kernel's debug information gives."""

from __future__ import annotations

import random
from functools import partial

import attrs
import pytest

from pvops_core.images import load_image
from pvops_core.patching.bysymbols import layout_from_dwarf
from pvops_core.patching.sites import read_sites
from pvops_core.patching.tables import find_table
from tests.patching.ages import AGES, kernel, paths
from tests.patching.dwarf import describe


@pytest.mark.parametrize("name", AGES)
def test_every_slot_of_every_age_is_named(name: str) -> None:
    age = AGES[name]
    image = kernel(age, more=partial(describe, age=age))
    layout = layout_from_dwarf(image)
    assert layout is not None
    assert [slot.path for slot in layout.slots] == paths(age)
    by_symbols = find_table(kernel(age), read_sites(kernel(age))).layout
    assert [(slot.symbol, slot.offset) for slot in layout.slots] == [
        (slot.symbol, slot.offset) for slot in by_symbols.slots
    ]


def test_functions_with_no_ops_names_do_not_matter() -> None:
    """What symbols cannot say: a table whose functions all have names of their own."""
    age = AGES["2.6.39-32-pae"]
    strange = attrs.evolve(
        age,
        groups={group: " ".join(f"x{n}" for n, _ in enumerate(names.split())) for group, names in age.groups.items()},
    )
    image = kernel(strange, more=partial(describe, age=age))
    assert [slot.path for slot in find_table(image, read_sites(image)).layout.slots] == paths(age)


@pytest.mark.parametrize(
    ("version", "source"), [(2, "arch/x86/kernel/paravirt.c"), (3, "arch/x86/kernel/paravirt_32.c")]
)
def test_older_debug_information_says_the_same(version: int, source: str) -> None:
    """Of the compilers of those days, and of the sources."""
    age = AGES["2.6.24-32"]
    layout = layout_from_dwarf(kernel(age, more=partial(describe, age=age, version=version, source=source)))
    assert layout is not None
    assert [slot.path for slot in layout.slots] == paths(age)


def test_a_group_that_the_kernel_has_not_got_has_no_slots() -> None:
    """Spinlocks, without SMP."""
    age = AGES["2.6.39-32-pae"]
    single = attrs.evolve(age, groups={group: names for group, names in age.groups.items() if group != "pv_lock_ops"})
    layout = layout_from_dwarf(kernel(single, more=partial(describe, age=age)))
    assert layout is not None
    assert [slot.path for slot in layout.slots] == paths(single)


def test_a_kernel_with_a_function_of_an_ops_name_is_not_misread() -> None:
    age = AGES["2.6.23-32"]
    image = kernel(age, functions=["save_fl"], more=partial(describe, age=age))
    assert {slot.symbol for slot in find_table(image, read_sites(image)).layout.slots} == {"paravirt_ops"}


def test_without_debug_information_there_is_none() -> None:
    assert layout_from_dwarf(kernel(AGES["3.2-64"])) is None


def test_damaged_debug_information_is_none_or_another() -> None:
    age, rng = AGES["2.6.24-32"], random.Random(1)
    good = kernel(age, more=partial(describe, age=age)).data
    places = [load_image(good).section(name) for name in (".debug_info", ".debug_abbrev")]
    for _ in range(150):
        raw = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            place = rng.choice([each for each in places if each is not None])
            raw[place.offset + rng.randrange(place.size)] = rng.randrange(256)
        layout_from_dwarf(load_image(bytes(raw)))

from __future__ import annotations

import pytest

from pvops_core.machine.cpu.model.features import ENGINE, PLACES, word


def test_no_two_features_share_a_place() -> None:
    assert len(set(PLACES.values())) == len(PLACES)


@pytest.mark.parametrize(
    ("names", "leaf", "register", "value"),
    [
        ({"fpu", "sse2", "nx"}, 1, "edx", 1 << 26 | 1),
        ({"fpu", "sse2", "nx"}, 0x80000001, "edx", 1 << 20),
        ({"hypervisor", "lahf"}, 1, "ecx", 1 << 31),
        (set(), 1, "edx", 0),
    ],
)
def test_a_word_has_the_bits_of_its_leaf_and_register(names: set[str], leaf: int, register: str, value: int) -> None:
    assert word(names, leaf, register) == value


def test_numbers_of_the_host_and_what_the_engine_lacks_are_not_offered() -> None:
    assert not {"rdrand", "xsave", "apic", "pcid"} & ENGINE

"""Models of processors: what each shows, and what cpuid then says on each kind of machine."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.kinds import MachineKind
from pvops_core.machine.cpu.model.cpuid import cpuid
from pvops_core.machine.cpu.model.cpumodel import MODELS, cpu_features, cpu_identity
from pvops_core.machine.cpu.model.features import ENGINE, PLACES

if TYPE_CHECKING:
    from tests.machine.conftest import Rig

LEAVES = (1, 0x80000001)


def shown(rig: Rig) -> set[str]:
    cpu = rig.machine.vcpus[0]
    words = {leaf: dict(zip(("eax", "ebx", "ecx", "edx"), cpuid(cpu, leaf, 0), strict=True)) for leaf in LEAVES}
    return {name for name, (leaf, register, bit) in PLACES.items() if words[leaf][register] >> bit & 1}


def test_each_model_has_what_the_one_below_it_has() -> None:
    order = [MODELS[name] for name in ("min", "x86-64-v1", "x86-64-v2", "max")]
    assert all(low < high for low, high in pairwise(order))
    assert order[-1] == ENGINE


def test_features_are_added_and_taken_away() -> None:
    assert cpu_features("x86-64-v1,+sse3,-nx,-sse3,+aes") == MODELS["x86-64-v1"] - {"nx"} | {"aes"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x86-64-v4", "the engine has no avx512f"),
        ("mx", "no model 'mx'.*did you mean max"),
        ("", "no model ''"),
        ("max,+avx2", "the engine has no feature 'avx2'"),
        ("max,-sse4.1", "did you mean sse4_1"),
        ("max,+apic", "the engine has no feature 'apic'"),
        ("max,sse3", "'sse3' does not begin"),
        ("max,", "'' does not begin"),
    ],
)
def test_what_the_engine_cannot_be_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        cpu_features(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max,vendor=AMD", "12 characters of ASCII, not 'AMD'"),
        ("max,family=6x", "family '6x' is no number"),
        ("max,family=271", "family 271 is not within 0 to 270"),
        ("max,model=-1", "model -1 is not"),
        ("max,modle=1", "no 'modle' can be set .did you mean model"),
    ],
)
def test_what_is_no_identity_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        cpu_features(text)


@given(st.integers(0, 270), st.integers(0, 255), st.integers(0, 15))
def test_cpuid_shows_whose_processor_it_is(family: int, model: int, stepping: int) -> None:
    text = f"min,vendor=AuthenticAMD,family={family},-tsc,model={model:#x},stepping={stepping}"
    assert cpu_features(text) == MODELS["min"] - {"tsc"}
    identity = cpu_identity(text)
    assert identity is not None
    signature = identity.signature
    shown_family = (signature >> 8 & 15) + (signature >> 20 & 255)
    shown_model = (signature >> 4 & 15) | (signature >> 16 & 15) << 4
    assert (shown_family, shown_model, signature & 15) == (family, model, stepping)
    assert b"".join(word.to_bytes(4, "little") for word in identity.words) == b"AuthcAMDenti"


def test_the_usual_processor_is_intels(make_rig: Callable[..., Rig]) -> None:
    assert cpu_identity("max,+aes") is None
    rig = make_rig(MachineKind.I386)
    assert cpuid(rig.machine.vcpus[0], 1, 0)[0] == 0x6F1
    rig.machine.identity = cpu_identity("max,vendor=AuthenticAMD,family=16")
    assert cpuid(rig.machine.vcpus[0], 1, 0)[0] == 0x100FF1 & ~0xF0000
    assert cpuid(rig.machine.vcpus[0], 0, 0)[1:] == (0x68747541, 0x444D4163, 0x69746E65)


@given(st.sampled_from(sorted(MODELS)), st.lists(st.tuples(st.sampled_from("+-"), st.sampled_from(sorted(ENGINE)))))
def test_the_last_change_of_a_feature_counts(model: str, changes: list[tuple[str, str]]) -> None:
    last = {feature: sign for sign, feature in changes}
    wanted = {feature for feature in ENGINE if last.get(feature, "+" if feature in MODELS[model] else "-") == "+"}
    assert cpu_features(",".join([model, *(sign + feature for sign, feature in changes)])) == wanted


@pytest.mark.parametrize(
    ("kind", "never"),
    [
        (MachineKind.X86_64, set()),
        (MachineKind.PAE, {"syscall", "lm"}),
        (MachineKind.I386, {"syscall", "lm", "nx", "pae"}),
    ],
)
@pytest.mark.parametrize("model", sorted(MODELS))
def test_cpuid_shows_the_model(make_rig: Callable[..., Rig], kind: MachineKind, never: set[str], model: str) -> None:
    rig = make_rig(kind)
    rig.machine.features = cpu_features(model)
    assert shown(rig) == MODELS[model] - never

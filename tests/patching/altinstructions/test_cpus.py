"""A processor model as a kernel knows it."""

from __future__ import annotations

from pvops_core.patching.altinstructions.cpus import MODELS, SYSCALL32, SYSENTER32
from tests.patching.altinstructions.typed import typed


def test_a_model_has_the_words_and_the_bugs_that_the_kernel_knows() -> None:
    image = typed(10, 1, {9 * 32 + 3: "srso", 9 * 32 + 4: "f00f", 4: "div0"})
    found = MODELS["EPYC"].features(image)
    assert {number // 32 for number in found} == {0, 1, 3, 4, 6, 7, 8, 9}
    assert {number for number in found if number >= 9 * 32} == {9 * 32 + 3}
    assert {SYSCALL32, SYSENTER32} <= found
    image.symbols["xen_enable_sysenter"] = 1
    assert SYSENTER32 not in MODELS["EPYC"].features(image)

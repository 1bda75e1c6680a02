"""Every op has a spec, every spec is an op's, and every spec says what its arguments are."""

from __future__ import annotations

import re

import pytest

from pvops_core.hookspecs.specs import specs
from pvops_core.ops import LAYOUTS, Op

OPS: dict[str, list[Op]] = {}
for _layout in LAYOUTS.values():
    for _slot in (*_layout.slots, *_layout.boot_hooks):
        OPS.setdefault(_slot.op.name, []).append(_slot.op)


def test_specs_and_ops_are_the_same_set() -> None:
    assert set(specs()) == set(OPS)


@pytest.mark.parametrize("name", sorted(OPS))
def test_a_spec_has_the_arguments_of_all_generations_in_their_order(name: str) -> None:
    first, *rest = specs()[name].arguments or ("",)
    assert first == ("ctx" if name == "patch" else "" if OPS[name][0].is_data else "cpu")
    for op in OPS[name]:
        names = [arg.name for arg in op.args]
        assert [argument for argument in rest if argument in names] == names
    assert set(rest) == {arg.name for op in OPS[name] for arg in op.args}


@pytest.mark.parametrize("name", sorted(OPS))
def test_a_spec_documents_each_argument_with_a_c_type(name: str) -> None:
    text = " ".join(specs()[name].doc.split())
    for op in OPS[name]:
        for arg in op.args:
            described = re.search(rf"\b{arg.name}: (?P<text>.*?)(?: \w+: |$)", text)
            assert described, arg.name
            assert arg.ctype.name in described["text"], (arg.name, arg.ctype.name)


@pytest.mark.parametrize("name", sorted(OPS))
def test_a_spec_says_what_comes_back(name: str) -> None:
    doc = specs()[name].doc
    summary, _, rest = doc.partition("\n")
    assert summary.endswith(".")
    assert not rest or rest.startswith("\n")
    results = {op.result.name for op in OPS[name] if op.result}
    assert ("Returns:" in doc) == bool(results)
    returns = " ".join(doc.partition("Returns:")[2].split())
    if name != "name":
        assert all(result in returns for result in results), results


def test_modules_are_the_kernel_groups() -> None:
    assert {spec.group for spec in specs().values()} == {
        "init", "x86_init", "time", "cpu", "descriptors", "irq", "apic", "mmu", "pagetable", "lock",
    }  # fmt: skip

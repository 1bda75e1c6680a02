from __future__ import annotations

import pytest

from pvops_core.errors import UsageError
from pvops_core.kinds import MachineKind
from pvops_core.runs.plan import Workload, choose, plan_builtin

I386, PAE, X86_64 = MachineKind
BACKENDS = {"native": {I386, PAE, X86_64}, "xen": {PAE, X86_64}, "lguest": {I386}}
LAYOUTS = {"6.1-64": X86_64, "2.6.23": I386, "2.6.23-pae": PAE}


def test_each_layout_runs_on_each_backend_of_its_kind() -> None:
    plan = plan_builtin(BACKENDS, LAYOUTS, Workload("w", 7, 2, 1 << 24))
    assert [(c.layout, c.backend) for c in plan.cells] == [
        ("6.1-64", "native"),
        ("6.1-64", "xen"),
        ("2.6.23", "native"),
        ("2.6.23", "lguest"),
        ("2.6.23-pae", "native"),
        ("2.6.23-pae", "xen"),
    ]
    assert {(c.workload, c.seed, c.vcpus, c.memory) for c in plan.cells} == {("w", 7, 2, 1 << 24)}
    assert [(s.layout, s.backend, s.reason) for s in plan.skipped] == [
        ("6.1-64", "lguest", "lguest is no x86_64 machine"),
        ("2.6.23", "xen", "xen is no i386 machine"),
        ("2.6.23-pae", "lguest", "lguest is no pae machine"),
    ]


def test_choose() -> None:
    assert choose("layout", [], ["a", "b"]) == ["a", "b"]
    assert choose("layout", ["b", "a", "b"], ["a", "b"]) == ["b", "a"]
    with pytest.raises(UsageError, match="no layout 'c'; there are a, b"):
        choose("layout", ["c"], ["a", "b"])
    with pytest.raises(UsageError, match="there are none"):
        choose("backend", ["c"], [])

from __future__ import annotations

from collections.abc import Callable

import pytest

from pvops_core.compare.comparison import Comparison, grouped, unsupported
from pvops_core.errors import PluginError
from pvops_core.runs.observation import Observation, Outcome
from pvops_core.runs.plan import Skipped

Make = Callable[..., Observation]


def comparison(*observations: Observation) -> Comparison:
    return Comparison(grouped(observations))


def test_observations_are_grouped_by_all_but_the_backend(make: Make) -> None:
    groups = grouped(
        [
            make(),
            make("lguest", layout="2.6.23", kind="i386"),
            make("xen"),
            make("xen", cell={"seed": 1}),
            make("xen", cell={"vcpus": 2}),
            make("xen", cell={"workload": "w"}),
            make("xen", cell={"guest": "/vmlinuz"}),
        ]
    )
    assert [[o.cell.backend for o in group.observations] for group in groups] == [
        ["native", "xen"],
        ["lguest"],
        *[["xen"]] * 4,
    ]


def test_equal(make: Make) -> None:
    result = comparison(make(), make("xen"))
    assert (result.equal, result.exit_code) == (True, 0)
    assert result.verdict == "Results are equal in the one group, over 2 runs."


def test_different(make: Make) -> None:
    result = comparison(make(), make("xen", results={"status": "0", "digest": "0"}), make("b"))
    assert (result.equal, result.exit_code) == (False, 5)
    assert result.verdict == "Results differ in 1 of 1 group."
    assert [d.backend for d in result.groups[0].differences] == ["xen"]


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome.CRASH, 6),
        (Outcome.TIMEOUT, 6),
        (Outcome.ERROR, 4),
        (Outcome.DIED, 4),
        (Outcome.MEMORY, 4),
        (Outcome.GARBAGE, 4),
    ],
)
def test_a_run_without_end_is_no_difference_but_a_failure(make: Make, outcome: Outcome, code: int) -> None:
    result = comparison(make("broken", outcome=outcome, results={}), make(), make("xen"))
    (group,) = result.groups
    assert group.reference.cell.backend == "native"
    assert group.differences == ()
    assert [o.cell.backend for o in group.failures] == ["broken"]
    assert (result.equal, result.exit_code) == (False, code)
    assert result.verdict == "1 of 3 runs did not finish."


def test_the_worst_decides(make: Make) -> None:
    differs = make("xen", results={})
    crashed = make("b", outcome=Outcome.CRASH)
    assert comparison(make(), differs, crashed).exit_code == 6
    assert comparison(make(), differs, crashed, make("c", outcome=Outcome.DIED)).exit_code == 4
    assert comparison(make(), differs, crashed).verdict == "Results differ in 1 of 1 group; 1 of 3 runs did not finish."


def test_what_a_backend_cannot_be_is_left_out(make: Make) -> None:
    observations = [make(), make("lguest", outcome=Outcome.UNSUPPORTED, reason="an lguest guest has one vCPU")]
    (group,) = grouped(observations)
    assert group.equal
    assert [o.cell.backend for o in group.observations] == ["native"]
    assert unsupported(observations) == (Skipped("lguest", "6.1-64", "an lguest guest has one vCPU"),)
    assert Outcome.UNSUPPORTED.exit_code == 2


def test_nothing_ran() -> None:
    nothing = comparison()
    assert (nothing.equal, nothing.exit_code, nothing.verdict) == (False, 3, "Nothing ran.")


def test_a_broken_plugin_counts_unless_others_were_asked_for(make: Make) -> None:
    broken = (PluginError("no", distribution="pvops-bad", version="1"),)
    groups = grouped([make(), make("xen")])
    assert Comparison(groups, plugin_errors=broken).exit_code == 4
    assert Comparison(groups, plugin_errors=broken, plugin_errors_count=False).exit_code == 0
    assert Comparison((), plugin_errors=broken).exit_code == 4
    assert Comparison((), plugin_errors=broken, plugin_errors_count=False).exit_code == 3


def test_a_backend_that_is_alone_is_not_called_equal(make: Make) -> None:
    alone = make("xen", layout="2.6.24-pae", kind="pae")
    verdict = Comparison(grouped([make(), make("xen"), alone])).verdict
    assert verdict == "Results are equal in the one group, over 3 runs; 1 group had one backend alone."
    verdict = Comparison(grouped([alone])).verdict
    assert verdict == "Nothing to compare: 1 run, each alone in its group."

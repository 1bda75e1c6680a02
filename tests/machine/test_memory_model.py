"""The machine does what a plain model of the manual's rules does, on small random programs at the ends of pages.

Some of many: ``memory_comparison`` compares any number when it is run as a module.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.machine.memory_comparison import Bench, Result, difference, main, model_result
from tests.machine.memory_model import Model
from tests.machine.memory_programs import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator

SEEDS = range(100_000, 100_600)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def test_machine_and_model_agree(bench: Bench) -> None:
    found = [difference(bench, seed) for seed in SEEDS]
    assert not [each for each in found if each]
    assert found.count("") > len(SEEDS) * 0.8


def modelled(seed: int) -> Result | None:
    return model_result(Writer(seed).program())


def test_the_programs_meet_every_fault() -> None:
    ends = Counter((each.vector, each.error) for seed in SEEDS if (each := modelled(seed)) is not None)
    pages = {(14, code) for code in (0, 2, 3, 16, 17, 4, 5, 6, 7, 20, 21)}
    assert pages | {(12, 0), (13, 0), (6, None)} <= set(ends)


@pytest.mark.parametrize(("rule", "vector", "error"), [
    ("no page is read-only", 14, 7), ("an instruction is one byte", 14, 20), ("SS is as DS", 12, 0),
])  # fmt: skip
def test_a_wrong_model_is_told(
    bench: Bench, rule: str, vector: int, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = ((seed, modelled(seed)) for seed in range(2_000))
    seeds = [seed for seed, end in ends if end is not None and (end.vector, end.error) == (vector, error)][:40]
    plain = Model._check

    def check(model: Model, start: int, size: int, segment: str, *, write: bool, fetch: bool = False) -> None:
        match rule:
            case "no page is read-only":
                write = False
            case "an instruction is one byte":
                size = 1 if fetch else size
            case _:
                segment = "ds"
        plain(model, start, size, segment, write=write, fetch=fetch)

    monkeypatch.setattr(Model, "_check", check)
    told = [each for each in (difference(bench, seed) for seed in seeds) if each]
    assert told
    assert "manual" in told[0]


def test_the_command_says_how_many(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["memory_comparison", "--count", "20", "--seed", "7"])
    assert main() == 0
    assert "20 programs compared, 0 differ" in capsys.readouterr().out

"""The machine, and the manual's rules, come to the same as Bochs; the harness works on whatever emulator is here."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from pvops_core.machine import MachineKind
from tests.machine.independent import harness, results
from tests.machine.independent.batches import chosen, run
from tests.machine.independent.emulators import EMULATORS, ProcessorError
from tests.machine.memory_comparison import Bench, Result, model_result
from tests.machine.memory_programs import Program, Writer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def kept() -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    head, *lines = (json.loads(line) for line in results.KEPT.read_text(encoding="utf-8").splitlines())
    return head, {line["seed"]: line for line in lines}


@pytest.fixture(scope="module")
def programs(kept: tuple[dict[str, Any], dict[int, dict[str, Any]]]) -> dict[int, Program]:
    return {seed: Writer(seed).program() for seed in kept[1]}


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def unlike(one: Result, other: Result) -> list[str]:
    fields = (field.name for field in attrs.fields(Result))
    return [name for name in fields if getattr(one, name) != getattr(other, name)]


def test_results_are_of_these_programs(kept: Any, programs: dict[int, Program]) -> None:  # noqa: ANN401
    assert kept[0] == {"processor": "bochs", "programs": results.digest(programs.values())}, "make them anew: README.md"
    assert len(programs) == 500
    ends = {(line["vector"], line["error"]) for line in kept[1].values()}
    assert ends >= {(14, code) for code in (0, 2, 3, 4, 5, 6, 7, 16, 17, 20, 21)} | {(12, 0), (13, 0), (6, None)}


def test_the_machine_comes_to_the_same(kept: Any, programs: dict[int, Program], bench: Bench) -> None:  # noqa: ANN401
    wanted = {seed: results.read(line, programs[seed]) for seed, line in kept[1].items()}
    found = {seed: unlike(bench.result(program), wanted[seed]) for seed, program in programs.items()}
    assert not {seed: names for seed, names in found.items() if names}


def test_the_model_comes_to_the_same(kept: Any, programs: dict[int, Program]) -> None:  # noqa: ANN401
    for seed, program in programs.items():
        modelled = model_result(program)
        assert modelled is not None
        assert not unlike(modelled, results.read(kept[1][seed], program)), seed


@pytest.mark.parametrize("name", EMULATORS)
def test_an_emulator_tells_what_is_kept(name: str, kept: Any, programs: dict[int, Program]) -> None:  # noqa: ANN401
    if shutil.which({"bochs": "bochs-bin", "qemu": "qemu-system-x86_64"}[name]) is None:
        pytest.skip(f"{name} is not installed (Debian's bochs and bochs-term, qemu-system-x86)")
    some = dict(list(programs.items())[:24])
    assert {program.kind for program in some.values()} == set(MachineKind)
    lines = results.document(name, some, run(EMULATORS[name], some)).splitlines()[1:]
    left_out = {"error"} if name == "qemu" else set()  # its versions differ on what reads and writes one place
    for line in map(json.loads, lines):
        assert {**line, **dict.fromkeys(left_out)} == {**kept[1][line["seed"]], **dict.fromkeys(left_out)}
    assert len(lines) == len(some)


@pytest.mark.parametrize(("words", "message"), [
    ([], "stopped midway"), ([harness.LAST], "was to come"), ([harness.MARK, 1], "0x0 was to come, and 0x1 came"),
    ([harness.MARK, 0, 14, 2, 0], "stopped midway"),
])  # fmt: skip
def test_what_is_told_must_be_whole(words: list[int], message: str) -> None:
    (program,) = chosen(1, 1).values()
    with pytest.raises(ProcessorError, match=message):
        results.told([program], b"".join(word.to_bytes(4, "little") for word in words) + b"\0")

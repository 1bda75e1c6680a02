"""What came of each program, as it is told by the harness, and as it is kept in a file."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.machine.independent import harness
from tests.machine.independent.emulators import ProcessorError
from tests.machine.memory_comparison import Result
from tests.machine.memory_model import PAGE, PF
from tests.machine.memory_programs import NAMES

if TYPE_CHECKING:
    from tests.machine.memory_programs import Program

KEPT: Final = Path(__file__).parent / "bochs.jsonl"
_RESUME: Final = 1 << 16


def told(programs: Sequence[Program], data: bytes) -> list[Result]:
    """The results of programs in what the harness sent.

    Raises:
        ProcessorError: it does not have them all.
    """
    words = iter(word for (word,) in struct.iter_unpack("<I", data[: len(data) & ~3]))
    try:
        results = [_one(program, number, words) for number, program in enumerate(programs)]
        _expect(next(words), harness.LAST)
    except (StopIteration, RuntimeError) as end:
        raise ProcessorError("the processor stopped midway") from end
    return results


def _expect(got: int, wanted: int) -> None:
    if got != wanted:
        raise ProcessorError(f"{wanted:#x} was to come, and {got:#x} came")


def _one(program: Program, number: int, words: Iterator[int]) -> Result:
    _expect(next(words), harness.MARK)
    _expect(next(words), number)
    vector, error = next(words), next(words)
    width = program.world.bits // 32
    address, rip, flags, *registers = [
        sum(next(words) << 32 * part for part in range(width)) for _ in range(3 + len(NAMES))
    ]
    memory = bytearray(b"".join(program.contents[frame] for frame in sorted(program.contents)))
    while (at := next(words)) != harness.NOTHING:
        struct.pack_into("<I", memory, 4 * at, next(words))
    return Result(
        vector, error if vector in harness.WITH_ERROR else None, address if vector == PF else None, rip,
        tuple(registers), flags & ~_RESUME, tuple(bytes(memory[at : at + PAGE]) for at in range(0, len(memory), PAGE)),
    )  # fmt: skip


def _line(seed: int, program: Program, result: Result) -> str:
    """One result as a line of JSON: what differs from how the program began."""
    before = [program.contents[frame] for frame in sorted(program.contents)]
    document: dict[str, Any] = {"seed": seed, "vector": result.vector, "error": result.error}
    document |= {"address": _hex(result.address), "rip": _hex(result.rip), "flags": _hex(result.flags)}
    document["registers"] = {
        name: _hex(new) for name, old, new in zip(NAMES, program.registers, result.registers, strict=True) if new != old
    }
    document["memory"] = {_hex(at): run.hex() for at, run in _changes(b"".join(before), b"".join(result.memory))}
    return json.dumps(document)


def _hex(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"


def _changes(old: bytes, new: bytes) -> Iterator[tuple[int, bytes]]:
    """Runs of bytes that are others now, by their distance from the first frame."""
    differing = [at for at, (one, other) in enumerate(zip(old, new, strict=True)) if one != other]
    begin = 0
    for index, at in enumerate(differing):
        if index + 1 == len(differing) or differing[index + 1] != at + 1:
            yield differing[begin], new[differing[begin] : at + 1]
            begin = index + 1


def read(document: Mapping[str, Any], program: Program) -> Result:
    """The result in a line."""
    memory = bytearray(b"".join(program.contents[frame] for frame in sorted(program.contents)))
    for at, run in document["memory"].items():
        memory[int(at, 16) : int(at, 16) + len(run) // 2] = bytes.fromhex(run)
    registers = tuple(
        int(document["registers"][name], 16) if name in document["registers"] else old
        for name, old in zip(NAMES, program.registers, strict=True)
    )
    address = document["address"]
    return Result(
        document["vector"], document["error"], None if address is None else int(address, 16),
        int(document["rip"], 16), registers, int(document["flags"], 16),
        tuple(bytes(memory[at : at + PAGE]) for at in range(0, len(memory), PAGE)),
    )  # fmt: skip


def document(processor: str, programs: Mapping[int, Program], results: Mapping[int, Result]) -> str:
    """What is kept: a line that says of what, and one for each program."""
    head = {"processor": processor, "programs": digest(programs.values())}
    lines = [json.dumps(head), *(_line(seed, programs[seed], results[seed]) for seed in programs)]
    return "".join(f"{line}\n" for line in lines)


def digest(programs: Iterable[Program]) -> str:
    """Of all that programs begin with: results are of these and no others."""
    total = hashlib.sha256()
    for program in programs:
        world = program.world
        pages = [(number, str(page)) for number, page in sorted(world.pages.items())]
        total.update(
            repr((program.kind.value, world.user, world.protect, pages, program.start, program.flags)).encode()
        )
        total.update(repr(program.registers).encode())
        for frame in sorted(program.contents):
            total.update(program.contents[frame])
    return total.hexdigest()
